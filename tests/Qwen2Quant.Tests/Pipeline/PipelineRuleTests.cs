using System.Diagnostics;
using System.Text;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Rules;
using Qwen2Quant.Tests.Support;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>The rules that only an opened checkpoint, a cache or a conversion can check.</summary>
public sealed class PipelineRuleTests : IDisposable
{
    private const string Commit = "0123456789abcdef0123456789abcdef01234567";
    private readonly TempFolder _folder = new();
    private int _names;

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void EveryRuleHasItsCases()
    {
        List<RuleCase> cases = [.. Cases()];
        RuleCase.CheckCoverage(cases, [.. PipelineRules.All, .. FileRules.All], []);
        foreach (RuleCase item in cases) item.Check();
    }

    [Fact]
    public void ConversionsHoldTheRulesOfNumbers()
    {
        RuleCase[] cases =
        [
            new(NumericRules.NoNan, "NaN", ErrorKind.Numeric, () => ConvertWith(float.NaN, "Q8_0")),
            new(NumericRules.NoNan, "NaN in a copy", ErrorKind.Numeric, () => ConvertWith(float.NaN, "BF16")),
            new(NumericRules.NoNan, "a plain value", null, () => ConvertWith(0.5f, "Q8_0")),
            new(NumericRules.NoInfinity, "an infinity", ErrorKind.Numeric, () => ConvertWith(float.NegativeInfinity, "Q8_0")),
            new(NumericRules.NoInfinity, "the largest of its type", null, () => ConvertWith(3.3e38f, "BF16")),
            new(NumericRules.WithinRange, "beyond half", ErrorKind.Numeric, () => ConvertWith(70000f, "F16")),
            new(NumericRules.WithinRange, "within half", null, () => ConvertWith(65000f, "F16")),
            new(NumericRules.ScaleWithinRange, "a scale beyond half", ErrorKind.Numeric, () => ConvertWith(1e30f, "Q8_0")),
            new(NumericRules.ScaleWithinRange, "a scale within half", null, () => ConvertWith(1e6f, "Q8_0")),
            new(NumericRules.FiniteActivations, "a NaN that is read", ErrorKind.Numeric, () => RunWith(float.NaN)),
            new(NumericRules.FiniteActivations, "activations beyond single precision", ErrorKind.Numeric, () => RunWith(3e38f)),
            new(NumericRules.FiniteActivations, "large activations", null, () => RunWith(1e15f)),
        ];
        RuleCase.CheckCoverage(cases, NumericRules.All, []);
        foreach (RuleCase item in cases) item.Check();
    }

    private IEnumerable<RuleCase> Cases()
    {
        yield return Gguf(PipelineRules.Architecture, "another family", ErrorKind.Unsupported, metadata => metadata.Set("general.architecture", GgufValue.String("llama")));
        yield return Gguf(PipelineRules.Architecture, "no family", ErrorKind.Unsupported, metadata => metadata.Remove("general.architecture"));
        yield return Gguf(PipelineRules.Architecture, "qwen2", null, _ => { });
        yield return Gguf(PipelineRules.MetadataAgrees, "one block too many", ErrorKind.InvalidInput, metadata => metadata.Set("qwen2.block_count", GgufValue.Scalar(4u)));
        yield return Gguf(PipelineRules.MetadataAgrees, "no epsilon", ErrorKind.InvalidInput, metadata => metadata.Remove("qwen2.attention.layer_norm_rms_epsilon"));
        yield return Gguf(PipelineRules.MetadataAgrees, "an unknown key more", null, metadata => metadata.Set("qwen2.rope.dimension_count", GgufValue.Scalar(64u)));
        yield return Gguf(PipelineRules.VocabularyAgrees, "types shorter than tokens", ErrorKind.InvalidInput, metadata => metadata.Set("tokenizer.ggml.token_type", GgufValue.Array<int>(new int[2047])));
        yield return Gguf(PipelineRules.VocabularyAgrees, "a type that there is not", ErrorKind.InvalidInput, metadata => metadata.Set("tokenizer.ggml.token_type", GgufValue.Array<int>(Enumerable.Repeat(7, 2048).ToArray())));
        yield return Gguf(PipelineRules.VocabularyAgrees, "scores shorter than tokens", ErrorKind.InvalidInput, metadata => metadata.Set("tokenizer.ggml.scores", GgufValue.Array<float>(new float[3])));
        yield return Gguf(PipelineRules.VocabularyAgrees, "scores as many as tokens", null, metadata => metadata.Set("tokenizer.ggml.scores", GgufValue.Array<float>(new float[2048])));
        yield return Cache(PipelineRules.CacheLinks, "a link out", ErrorKind.InvalidInput, root => File.CreateSymbolicLink(Path.Combine(root, "snapshots", Commit, "x"), "/etc/hostname"));
        yield return Cache(PipelineRules.CacheLinks, "a link to a blob", null, root => File.CreateSymbolicLink(Path.Combine(root, "snapshots", Commit, "x"), "../../blobs/b"));
        yield return Cache(PipelineRules.CacheRevision, "an absent commit", ErrorKind.InvalidInput, root => File.WriteAllText(Path.Combine(root, "refs", "main"), new string('f', 40)));
        yield return Cache(PipelineRules.CacheRevision, "a present commit", null, _ => { });
        yield return Cache(PipelineRules.DownloadFinished, "an unfinished blob", ErrorKind.InvalidInput, root => File.WriteAllText(Path.Combine(root, "blobs", "c.incomplete"), ""));
        yield return Cache(PipelineRules.DownloadFinished, "a finished blob", null, root => File.WriteAllText(Path.Combine(root, "blobs", "c"), ""));
        yield return Cache(PipelineRules.ModelId, "three parts", ErrorKind.Usage, _ => { }, "a/b/c");
        yield return Cache(PipelineRules.ModelId, "the longest name", ErrorKind.Usage, _ => { }, "a/" + new string('b', 97));
        yield return Cache(PipelineRules.ModelId, "two parts", null, _ => { });
        yield return new RuleCase(PipelineRules.SourceNotQuantized, "Q8_0 to Q4_0", ErrorKind.InvalidInput, () => Conversions.Quantize(Quantized("Q8_0"), Fresh(), "Q4_0"));
        yield return new RuleCase(PipelineRules.SourceNotQuantized, "a bitsandbytes folder", ErrorKind.Unsupported, () => Folder(config => config.Replace("\"vocab_size\"", "\"quantization_config\": {\"quant_method\": \"bitsandbytes\"}, \"vocab_size\"", StringComparison.Ordinal)));
        yield return new RuleCase(PipelineRules.SourceNotQuantized, "Q8_0 to Q8_0", null, () => Conversions.Quantize(Quantized("Q8_0"), Fresh(), "Q8_0"));
        yield return new RuleCase(FileRules.RegularFiles, "a path with a newline", ErrorKind.InvalidInput, () => Open("a\nb"));
        yield return new RuleCase(FileRules.RegularFiles, "a path of 5,000 bytes", ErrorKind.InvalidInput, () => Open(new string('x', 5000)));
        yield return new RuleCase(FileRules.RegularFiles, "a FIFO as weights", ErrorKind.InvalidInput, OpenFifo);
        yield return new RuleCase(FileRules.RegularFiles, "a folder with blanks", null, () => Open(TestCheckpoint.Write(_folder.File("with blanks ü"), TestCheckpoint.Small)));
    }

    private string Fresh() => _folder.File($"{_names++}.gguf");

    private static TokenizerDefinition Open(string model)
    {
        using Checkpoint checkpoint = Checkpoint.Open(model, new RunContext());
        return checkpoint.Tokenizer;
    }

    private TokenizerDefinition Folder(Func<string, string> editConfig)
    {
        string folder = TestCheckpoint.Write(_folder.File($"folder{_names++}"), TestCheckpoint.Small);
        string config = Path.Combine(folder, "config.json");
        File.WriteAllText(config, editConfig(File.ReadAllText(config)));
        return Open(folder);
    }

    private ConversionReport ConvertWith(float value, string recipe)
    {
        string source = TestCheckpoint.Write(_folder.File($"source{_names++}"), TestCheckpoint.Small, edit: (name, values) =>
        {
            if (name == "model.layers.1.mlp.up_proj.weight") values[100] = value;
        });
        return Conversions.Quantize(source, Fresh(), recipe);
    }

    /// <summary>Measures a model in which one channel of an MLP is multiplied by the value, twice.</summary>
    private PerplexityResult RunWith(float value)
    {
        string source = TestCheckpoint.Write(_folder.File($"source{_names++}"), TestCheckpoint.Small, edit: (name, values) =>
        {
            const int row = 1;
            if (name == "model.layers.0.mlp.up_proj.weight") values[row * TestCheckpoint.Small.HiddenSize] = value;
            if (name == "model.layers.0.mlp.down_proj.weight") values[row] = value;
        });
        using Checkpoint checkpoint = Checkpoint.Open(source, new RunContext());
        return Proof.Perplexity(checkpoint, new EvaluationText("text", Corpora.Read(Corpora.Text)), new WindowOptions { Context = 64, Chunks = 2 }, new RunContext());
    }

    private TokenizerDefinition OpenFifo()
    {
        string folder = TestCheckpoint.Write(_folder.File($"fifo{_names++}"), TestCheckpoint.Small);
        File.Delete(Path.Combine(folder, "config.json"));
        using (Process make = Process.Start("mkfifo", Path.Combine(folder, "config.json"))) make.WaitForExit();
        return Open(folder);
    }

    private string Quantized(string recipe)
    {
        string path = Fresh();
        Conversions.Quantize("builtin:tiny", path, recipe);
        return path;
    }

    private RuleCase Gguf(Rule rule, string name, ErrorKind? refusal, Action<GgufMetadata> edit) => new(rule, name, refusal, () =>
    {
        string original = Fresh();
        Conversions.ToGguf("builtin:tiny", original);
        string path = Fresh();
        using (GgufFile gguf = GgufFile.Open(DiskFileLayer.Instance, original, new()))
        {
            GgufMetadata metadata = gguf.Metadata.Clone();
            edit(metadata);
            PlannedFile plan = GgufPlan.Create(metadata, [.. gguf.Tensors.Select(entry => new OutputTensor(entry.Name, entry.Type, entry.Shape))], path);
            using IWriteFile file = DiskFileLayer.Instance.Create(path, plan.ByteLength);
            file.Write(0, plan.Header);
        }

        return Open(path);
    });

    private RuleCase Cache(Rule rule, string name, ErrorKind? refusal, Action<string> edit, string id = "org/name") => new(rule, name, refusal, () =>
    {
        string cache = _folder.File($"cache{_names++}");
        string repository = Path.Combine(cache, "models--org--name");
        foreach (string folder in new[] { "refs", "blobs", $"snapshots/{Commit}" }) Directory.CreateDirectory(Path.Combine(repository, folder));
        File.WriteAllText(Path.Combine(repository, "refs", "main"), Commit);
        File.WriteAllBytes(Path.Combine(repository, "blobs", "b"), Encoding.UTF8.GetBytes("blob"));
        edit(repository);
        return new HubCache(DiskFileLayer.Instance, cache).FindSnapshot(id);
    });
}
