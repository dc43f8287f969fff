using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Checkpoints;

/// <summary>
/// An opened model, whatever its container: configuration, tokenizer, and its tensors in two views.
/// Opening reads headers only.
/// </summary>
public sealed class Checkpoint : IDisposable
{
    private readonly IFileLayer _files;
    private readonly Lazy<TokenizerDefinition> _tokenizer;
    private readonly SourceFiles _sources;

    private Checkpoint(ModelLocation location, IFileLayer files, IReadOnlyList<string> weightPaths, Qwen2Config config, ITensorSource raw, CanonicalView view, Func<TokenizerDefinition> loadTokenizer)
    {
        Location = location;
        _files = files;
        Config = config;
        Raw = raw;
        Tensors = view;
        _tokenizer = new Lazy<TokenizerDefinition>(loadTokenizer);
        _sources = new SourceFiles(files, weightPaths);
        Gguf = raw as GgufFile;
    }

    public ModelLocation Location { get; }

    public Qwen2Config Config { get; private set; }

    /// <summary>Tensors as the container has them.</summary>
    public ITensorSource Raw { get; }

    /// <summary>Tensors under Hugging Face's names, experts separate.</summary>
    public CanonicalView Tensors { get; }

    /// <summary>The files that hold weights.</summary>
    public IReadOnlyList<string> WeightPaths => _sources.Paths;

    /// <summary>The GGUF file, when the model is one.</summary>
    public GgufFile? Gguf { get; private init; }

    /// <summary>generation_config.json, where there is one.</summary>
    public GenerationConfig? Generation { get; private init; }

    /// <summary>Small files of the folder that belong into every output: tokenizer, generation settings, licence.</summary>
    public IReadOnlyList<string> CompanionNames { get; private init; } = [];

    /// <summary>The tokenizer; read on first use, since only some verbs need it.</summary>
    public TokenizerDefinition Tokenizer => _tokenizer.Value;

    /// <summary>What the container is, for people.</summary>
    public string ContainerName => Gguf is { } gguf
        ? $"GGUF v{gguf.Version}{(gguf.Parts.Count > 1 ? $" in {gguf.Parts.Count} parts" : "")}"
        : $"safetensors{(WeightPaths.Count > 1 ? $" in {WeightPaths.Count} shards" : "")}{(Raw is PackedCheckpoint packed ? $", {packed.LayoutName}" : "")}";

    /// <summary>The files of weights with their lengths and times: equal when the weights are.</summary>
    internal string Identity => _sources.Identity;

    /// <summary>The tokens that end a text: what its tokenizer, configuration and generation settings name.</summary>
    public HashSet<int> StopTokens(ITokenizer tokenizer) => [.. tokenizer.EndOfTextIds, .. Config.EosTokenIds, .. Generation?.EosTokenIds ?? []];

    /// <summary>Finds and opens a model; all rules of its headers, configuration and tensor list are checked.</summary>
    public static Checkpoint Open(string model, RunContext context)
    {
        ModelLocation location = ModelLocator.Locate(context.Files, model);
        IFileLayer files = location.Kind == ModelKind.BuiltIn ? BuiltInModels.Instance : context.Files;
        return location.Kind == ModelKind.Gguf ? OpenGguf(location, files, context) : OpenFolder(location, files, context);
    }

    /// <summary>Runs the model with dual chunk attention, whatever its configuration says of it.</summary>
    /// <exception cref="QuantException">HF-70: the configuration does not go with it.</exception>
    public void AttendIn(DualChunkAttention chunks) => Config = (Config with { DualChunkAttention = chunks }).Validated(Location.Path);

    /// <summary>The same files seen as another model: to be closed before this one, which it leaves open.</summary>
    /// <param name="tensors">All tensors of <paramref name="config"/>'s catalogue.</param>
    internal Checkpoint Rewritten(Qwen2Config config, ITensorSource tensors) =>
        new(Location, _files, WeightPaths, config, tensors, CanonicalView.Over(tensors, TensorCatalogue.For(config), Location.Path), () => Tokenizer) { Gguf = Gguf, Generation = Generation, CompanionNames = CompanionNames };

    /// <summary>A companion file's bytes, or null when the model has none of that name.</summary>
    public byte[]? ReadCompanion(string name, RunContext context)
    {
        string path = Path.Combine(Location.Path, name);
        return _files.FileExists(path) ? _files.ReadAllBytes(path, context.Limits.JsonFileBytes) : null;
    }

    /// <summary>The licence that the model's card or metadata name, or null.</summary>
    public string? FindLicense(RunContext context)
    {
        if (Gguf is { } gguf) return gguf.Metadata.TryGetString("general.license", out string? license) ? license : null;
        return ReadCompanion(ModelCard.FileName, context) is { } card ? ModelCard.FindLicense(card) : null;
    }

    /// <summary>Opens a weight file whose SHA-256 is known: the cache names the blobs of large files by it.</summary>
    internal IEnumerable<(string Path, string Sha256, Func<IReadFile> Open)> KnownHashes()
    {
        const int hexDigits = 64;
        foreach (string path in WeightPaths)
        {
            string name = Path.GetFileName(_files.ResolveLink(path) ?? path);
            if (name.Length == hexDigits && name.All(char.IsAsciiHexDigitLower)) yield return (path, name, () => _files.OpenTyped(path));
        }
    }

    /// <summary>Refuses a source that was changed since it was opened.</summary>
    public void RequireUnchanged() => _sources.RequireUnchanged();

    public void Dispose() => Tensors.Dispose();

    private static Checkpoint OpenFolder(ModelLocation location, IFileLayer files, RunContext context)
    {
        string folder = location.Path;
        string configPath = Path.Combine(folder, "config.json");
        IReadOnlyList<string> names = files.ListTyped(folder);
        if (!names.Contains("config.json"))
        {
            string? gguf = names.FirstOrDefault(name => name.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase));
            throw new QuantException(ErrorKind.InvalidInput, "the folder has no config.json")
            {
                Rule = ModelRules.Json,
                Path = folder,
                Remedy = gguf is null ? "Name the folder of a Hugging Face checkpoint." : $"Name the GGUF file itself: {Path.Combine(folder, gguf)}.",
            };
        }

        byte[] configJson = files.ReadAllBytes(configPath, context.Limits.JsonFileBytes);
        Qwen2Config config = Qwen2Config.ParseJson(configJson, configPath, context.Limits);
        PackedSource? packed = PackedSource.Find(config, configJson, folder, names, files, context);
        string generationPath = Path.Combine(folder, "generation_config.json");
        GenerationConfig? generation = names.Contains("generation_config.json")
            ? GenerationConfig.ParseJson(files.ReadAllBytes(generationPath, context.Limits.JsonFileBytes), generationPath, context.Limits)
            : null;
        SafetensorsCheckpoint weights = OpenWeights(location, files, context);
        return Canonical(packed is null ? weights : packed.Open(weights, folder), config, folder, (raw, view) => new Checkpoint(
            location, files, [.. weights.Files.Select(file => file.Path)], config, raw, view,
            () => TokenizerFolder.Load(files, folder, context.Limits).WithFallbackIds(config.EosTokenIds.Count > 0 ? config.EosTokenIds[0] : null, config.PadTokenId, config.BosTokenId))
        {
            Generation = generation,
            CompanionNames = [.. names.Where(CompanionFiles.IsCompanion)],
        });
    }

    /// <summary>Opens the safetensors files of a folder location, without its configuration.</summary>
    internal static SafetensorsCheckpoint OpenWeights(ModelLocation location, IFileLayer files, RunContext context) => location.WeightsPath switch
    {
        null => SafetensorsCheckpoint.Open(files, location.Path, context.ReadOptions),
        var path when path.EndsWith(".json", StringComparison.Ordinal) => SafetensorsCheckpoint.OpenIndex(files, path, context.ReadOptions),
        var path => SafetensorsCheckpoint.OpenFile(files, path, context.ReadOptions),
    };

    private static Checkpoint OpenGguf(ModelLocation location, IFileLayer files, RunContext context)
    {
        GgufFile gguf = GgufFile.Open(files, location.Path, context.ReadOptions);
        Qwen2Config config;
        try
        {
            config = GgufModelMetadata.ReadConfig(gguf.Metadata, gguf, location.Path);
        }
        catch
        {
            gguf.Dispose();
            throw;
        }

        return Canonical(gguf, config, location.Path, (_, view) => new Checkpoint(
            location, files, [.. gguf.Parts.Select(part => part.Path)], config, gguf, view,
            () => GgufTokenizerMetadata.Read(gguf.Metadata, config.VocabSize, location.Path)));
    }

    private static Checkpoint Canonical(ITensorSource source, Qwen2Config config, string path, Func<ITensorSource, CanonicalView, Checkpoint> create)
    {
        try
        {
            return create(source, CanonicalView.Over(source, TensorCatalogue.For(config), path));
        }
        catch
        {
            source.Dispose();
            throw;
        }
    }
}
