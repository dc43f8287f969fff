using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Formats.Packed.CompressedTensors;

/// <summary>How the weights of a group's modules lie in tensors.</summary>
internal enum CtFormat
{
    /// <summary>Integers in 32-bit words.</summary>
    PackQuantized,

    /// <summary>A signed byte each.</summary>
    IntQuantized,

    /// <summary>An E4M3 byte each.</summary>
    FloatQuantized,

    Nvfp4,
    Mxfp4,

    /// <summary>An E4M3 byte each, under powers of two.</summary>
    Mxfp8,
}

/// <summary>What a group of the configuration says of its modules' weights.</summary>
/// <param name="GroupSize">Inputs that share a scale, -1 for whole rows, 0 where one scale or one for each tile is stored.</param>
/// <param name="BlockStructure">Rows and columns of a tile under one scale, or null.</param>
internal sealed record CtWeights(CtFormat Format, int Bits, bool IsSymmetric, int GroupSize, (int Rows, int Columns)? BlockStructure)
{
    public bool IsPerTensor => GroupSize == 0 && BlockStructure is null;
}

/// <summary>The <c>quantization_config</c> of a compressed-tensors checkpoint (llm-compressor), or of plain <c>fp8</c>, which is one group of it by other names.</summary>
public sealed class CtSettings
{
    /// <summary>The class that stands for every linear.</summary>
    private const string AllLinears = "Linear";

    private const string PatternPrefix = "re:";

    // A pattern from a file may backtrack without end.
    private static readonly TimeSpan MatchTime = TimeSpan.FromSeconds(1);

    private readonly List<(string[] Names, Regex[] Patterns, CtWeights Weights)> _groups = [];
    private readonly string _path;

    private CtSettings(string layoutName, string scaleSuffix, string path) => (LayoutName, ScaleSuffix, _path) = (layoutName, scaleSuffix, path);

    internal string LayoutName { get; }

    /// <summary>How the names of scales end.</summary>
    internal string ScaleSuffix { get; }

    /// <param name="path">Shown in errors.</param>
    /// <exception cref="QuantException">PK-1.</exception>
    public static CtSettings Read(ConfigJson json, string path)
    {
        if (json.Object("sparsity_config")?.Text("format") is { } sparsity && sparsity != "dense") throw PackedRules.Unknown(path, "sparsity_config", sparsity, "dense");
        // Rotations that a reader applies to activations as they come.
        if (json.Object("transform_config") is { } transforms && transforms.Keys.Any(key => transforms.Has(key))) throw PackedRules.Unknown(path, "transform_config", string.Join(", ", transforms.Keys), "none: transformed activations are not supported");
        CtSettings settings = new("compressed-tensors", CtModules.ScaleSuffix, path);
        string? format = json.Text("format");
        ConfigJson groups = json.Object("config_groups") ?? throw PackedRules.Unknown(path, "config_groups", "none", "an object");
        foreach (string name in groups.Keys)
        {
            ConfigJson group = groups.Object(name) ?? throw PackedRules.Unknown(path, name, "no object", "an object");
            if (group.Object("weights") is not { } weights) continue;
            settings.Add(group.Texts("targets") ?? [], ReadWeights(weights, group.Text("format") ?? format ?? "", path));
        }

        return settings._groups.Count > 0 ? settings : throw PackedRules.Unknown(path, "config_groups", "no group with weights", "one at least");
    }

    /// <summary>Plain <c>fp8</c>.</summary>
    /// <exception cref="QuantException">PK-1.</exception>
    public static CtSettings ReadFp8(ConfigJson json, string path)
    {
        if (json.Text("activation_scheme") is { } activations && activations is not ("dynamic" or "static")) throw PackedRules.Unknown(path, "activation_scheme", activations, "dynamic or static");
        IReadOnlyList<int>? block = json.Integers("weight_block_size");
        if (block is not null && (block.Count != 2 || block[0] <= 0 || block[1] <= 0)) throw PackedRules.Unknown(path, "weight_block_size", string.Join(", ", block), "two positive numbers");
        CtSettings settings = new(block is null ? "FP8" : "FP8 blocks", block is null ? CtModules.ScaleSuffix : CtModules.InverseScaleSuffix, path);
        settings.Add([AllLinears], new CtWeights(CtFormat.FloatQuantized, 8, true, 0, block is null ? null : (block[0], block[1])));
        return settings;
    }

    /// <summary>What the configuration says of a module's weights: the group whose targets name it, or all linears; null for none. What is ignored shows in its tensors.</summary>
    /// <exception cref="QuantException">PK-1: a pattern takes too long.</exception>
    internal CtWeights? For(string module)
    {
        try
        {
            foreach ((string[] names, Regex[] patterns, CtWeights weights) in _groups)
            {
                if (names.Contains(module) || patterns.Any(pattern => pattern.IsMatch(module))) return weights;
            }
        }
        catch (RegexMatchTimeoutException error)
        {
            throw new QuantException(ErrorKind.InvalidInput, "a pattern of targets takes too long to match", error) { Rule = PackedRules.Configuration, Path = _path, Tensor = module, Found = error.Pattern };
        }

        return _groups.Find(group => group.Names.Contains(AllLinears)).Weights;
    }

    /// <summary>Patterns match from the start of a name.</summary>
    private void Add(IReadOnlyList<string> targets, CtWeights weights)
    {
        string pattern = "";
        try
        {
            List<Regex> patterns = [];
            foreach (string target in targets.Where(target => target.StartsWith(PatternPrefix, StringComparison.Ordinal)))
            {
                pattern = target[PatternPrefix.Length..];
                patterns.Add(new Regex($"^(?:{pattern})", RegexOptions.CultureInvariant, MatchTime));
            }

            _groups.Add(([.. targets], [.. patterns], weights));
        }
        catch (ArgumentException error)
        {
            throw new QuantException(ErrorKind.InvalidInput, "a pattern of targets is not a regular expression", error) { Rule = PackedRules.Configuration, Path = _path, Found = pattern };
        }
    }

    private static CtWeights ReadWeights(ConfigJson json, string formatName, string path)
    {
        string type = json.Text("type") ?? "int";
        CtFormat format = formatName switch
        {
            // The first name of formats that store a byte for each weight.
            "naive-quantized" => type == "float" ? CtFormat.FloatQuantized : CtFormat.IntQuantized,
            "pack-quantized" => CtFormat.PackQuantized,
            "int-quantized" => CtFormat.IntQuantized,
            "float-quantized" => CtFormat.FloatQuantized,
            "nvfp4-pack-quantized" => CtFormat.Nvfp4,
            "mxfp4-pack-quantized" => CtFormat.Mxfp4,
            "mxfp8-quantized" => CtFormat.Mxfp8,
            _ => throw PackedRules.Unknown(path, "format", formatName.Length == 0 ? "none" : formatName, "pack-quantized, int-quantized, float-quantized, nvfp4-pack-quantized, mxfp4-pack-quantized or mxfp8-quantized"),
        };
        bool isFloat = format is not (CtFormat.PackQuantized or CtFormat.IntQuantized), isByte = format is CtFormat.IntQuantized or CtFormat.FloatQuantized or CtFormat.Mxfp8;
        if (type != (isFloat ? "float" : "int")) throw PackedRules.Unknown(path, "type", type, isFloat ? "float" : "int");
        int bits = json.Integer("num_bits", 8);
        bool suits = format == CtFormat.PackQuantized ? bits is 4 or 8 : bits == (isByte ? 8 : 4);
        if (!suits) throw PackedRules.Unknown(path, "num_bits", $"{bits}", format == CtFormat.PackQuantized ? "4 or 8" : isByte ? "8" : "4");
        int? groupSize = json.OptionalInteger("group_size");
        string strategy = json.Text("strategy") ?? groupSize switch { null => "tensor", -1 => "channel", _ => "group" };
        bool isSymmetric = json.Boolean("symmetric", true);
        if (!isSymmetric && format != CtFormat.PackQuantized) throw PackedRules.Unknown(path, "symmetric", "false", "true");
        switch (strategy)
        {
            case "channel":
                return new CtWeights(format, bits, isSymmetric, -1, null);
            case "tensor" when format == CtFormat.FloatQuantized:
                return new CtWeights(format, bits, isSymmetric, 0, null);
            case "block" when format == CtFormat.FloatQuantized && json.Integers("block_structure") is [> 0, > 0] block:
                return new CtWeights(format, bits, isSymmetric, 0, (block[0], block[1]));
            case "group" or "tensor_group" when groupSize is > 0 && groupSize % (format is CtFormat.Nvfp4 ? 16 : BitFields.WordRun) == 0:
                return new CtWeights(format, bits, isSymmetric, groupSize.Value, null);
            case "group" or "tensor_group":
                throw PackedRules.Unknown(path, "group_size", $"{groupSize?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? "none"}", "a multiple of 32");
            default:
                throw PackedRules.Unknown(path, "strategy", strategy, "channel, group, tensor or block, as the format has them");
        }
    }
}
