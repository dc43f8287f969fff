using System.Text.Json.Serialization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Pipeline.Quantizing;

/// <summary>What may be asked of a quantization beside model, scheme and output: the options of <c>quantize</c>, under their names with <c>_</c> for <c>-</c>. Null and empty are what the program decides.</summary>
public sealed record QuantizationChoices
{
    public string? Recipe { get; init; }
    public bool Pure { get; init; }
    public string? OutputType { get; init; }
    public string? EmbeddingType { get; init; }
    public bool LeaveOutputTensor { get; init; }

    /// <summary>PATTERN=TYPE; the first that matches wins.</summary>
    public IReadOnlyList<string> TensorType { get => field ?? []; init; }

    public bool AllowRequantize { get; init; }
    public bool KeepSplit { get; init; }

    /// <summary>KEY=TYPE:VALUE.</summary>
    public IReadOnlyList<string> OverrideKv { get => field ?? []; init; }

    /// <summary>For folders.</summary>
    public string? MaxShardSize { get; init; }

    public string? Method { get; init; }
    public string? Effort { get; init; }

    /// <summary>Path of an importance matrix.</summary>
    public string? Imatrix { get; init; }

    /// <summary>What metadata call the importance matrix; null for its path.</summary>
    [JsonIgnore]
    public string? ImatrixName { get; init; }

    /// <summary>A TEXT argument.</summary>
    public string? Calibration { get; init; }

    /// <summary>Path of a file of Gram matrices.</summary>
    public string? Statistics { get; init; }

    public IReadOnlyList<string> IncludeWeights { get => field ?? []; init; }
    public IReadOnlyList<string> ExcludeWeights { get => field ?? []; init; }
    public double? Damping { get; init; }
    public double? Shrinkage { get; init; }
    public double? Smoothing { get; init; }
    public bool AllExperts { get; init; }
    public int? Samples { get; init; }
    public int? Context { get; init; }
    public string? Sampling { get; init; }
    public bool ParseSpecial { get; init; }
    public bool Exact { get; init; }
    public bool Strict { get; init; }
    public bool Modelfile { get; init; }

    /// <exception cref="QuantException">Usage: it is none.</exception>
    internal Effort ReadEffort() => Effort is null ? Core.Encoding.Effort.Normal : Enum.TryParse(Effort, ignoreCase: true, out Effort effort) && Enum.IsDefined(effort) ? effort
        : throw new QuantException(ErrorKind.Usage, "--effort is none") { Found = Effort, Expected = "reference, fast, normal or high" };
}
