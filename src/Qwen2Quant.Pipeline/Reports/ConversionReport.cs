using System.Text.Json.Serialization;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Reports;

/// <summary>One tensor of an output.</summary>
/// <param name="RequestedType">What the recipe asked for.</param>
/// <param name="Rmse">Root of the mean squared error of the stored values against the source's.</param>
/// <param name="RelativeError">Root of the squared error over the squared values.</param>
/// <param name="Solver">How the codes were chosen; <c>copy</c> where the bytes were taken over, <c>exact</c> where integers were taken over into another layout, <c>cast</c> where plain values were stored in another type, <c>rescaled</c> where scales of channels were folded into them.</param>
/// <param name="TokensSeen">Tokens behind the importance of its columns or its Hessian, of the least seen expert; absent without either.</param>
/// <param name="Gptq">What GPTQ did; absent for others.</param>
public sealed record TensorReport(
    string Name, string Type, string RequestedType, IReadOnlyList<long> Shape, long Bytes, double? Rmse, double? RelativeError, string Solver, long? TokensSeen = null, double? Damping = null, GptqTensorReport? Gptq = null);

/// <summary>What GPTQ made of a tensor.</summary>
/// <param name="OutputErrorBefore">Root of the squared error of its outputs over their square, on the calibration text, after plain rounding with importance.</param>
/// <param name="OutputErrorAfter">The same of what was written.</param>
/// <param name="RoundedParts">Experts with too few tokens for a Hessian, which are rounded.</param>
public sealed record GptqTensorReport(double OutputErrorBefore, double OutputErrorAfter, int RoundedParts);

/// <summary>How GPTQ went about a model.</summary>
/// <param name="Calibration">Name of the text.</param>
/// <param name="Schedule"><c>sequential</c>: each matrix under the inputs that the matrices before it, as they were written, give it; <c>parallel</c>: under those of the unquantized model.</param>
/// <param name="PlannedMemoryBytes">What the process takes, as planned.</param>
/// <param name="Seconds">Of each stage; null for a plan.</param>
public sealed record GptqReport(string Calibration, string Schedule, int Windows, int Context, long Tokens, double Damping, double Shrinkage, bool ActivationOrder, int DescentPasses, int RefitPasses, double InputCorrection, bool AllExperts, long PlannedMemoryBytes, GptqSeconds? Seconds);

/// <summary>Scales that were folded into a model before its codes were chosen.</summary>
/// <param name="CastError">What storing norms, biases and other plain tensors with their scales changed: root of the squared change over the squared values.</param>
public sealed record RescalingReport(double CastError, IReadOnlyList<FoldReport> Folds);

/// <summary>The scales of one producer's channels.</summary>
/// <param name="Ratio">Exponent of the activations.</param>
/// <param name="UsesWeights">Whether weights counted too.</param>
/// <param name="Loss">Squared error of the consumers' outputs with the scales over that without; absent where none was measured.</param>
public sealed record FoldReport(string Producer, double Ratio, bool UsesWeights, double Least, double Greatest, double? Loss);

/// <summary>Seconds of the stages: the model, Gram matrices, scales of channels, factoring, choosing codes, and writing the output.</summary>
public sealed record GptqSeconds(double Forward, double Gram, double Rescale, double Factor, double Solve, double Write);

/// <summary>What merging or splitting gave.</summary>
/// <param name="Output">Path of the folder or file; of a split one the path of its first part.</param>
/// <param name="Files">That hold tensors.</param>
/// <param name="Bytes">Bytes of all its files.</param>
/// <param name="DryRun">True when nothing was written.</param>
public sealed record ContainerReport(string Output, int Files, int Tensors, long Bytes, double Seconds, bool DryRun, IReadOnlyList<QuantEvent> Events);

/// <summary>What a conversion did; printed by <c>--json</c> and kept beside the output.</summary>
/// <param name="Version">Version of this program.</param>
/// <param name="Source">Name of the source model.</param>
/// <param name="Scheme">What was asked for, as <c>--to</c> spells it.</param>
/// <param name="Output">Path of the output.</param>
/// <param name="Bytes">Bytes of all its files.</param>
/// <param name="DryRun">True when nothing was written.</param>
/// <param name="Settings">What decided the bytes, by name: equal settings give equal files.</param>
/// <param name="ValidatedOn">Hash of the text and windows of the validation.</param>
public sealed record ConversionReport(
    string Version,
    string Source,
    string Scheme,
    string Effort,
    string Output,
    long Bytes,
    long Parameters,
    double BitsPerWeight,
    double Seconds,
    long PeakMemoryBytes,
    bool DryRun,
    IReadOnlyList<TensorReport> Tensors,
    IReadOnlyList<QuantEvent> Events,
    ComparisonResult? Validation = null,
    string? Method = null,
    GptqReport? Gptq = null,
    RescalingReport? Rescaling = null,
    IReadOnlyDictionary<string, string>? Settings = null,
    string? ValidatedOn = null);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    UseStringEnumConverter = true,
    WriteIndented = true)]
[JsonSerializable(typeof(ConversionReport))]
[JsonSerializable(typeof(ContainerReport))]
[JsonSerializable(typeof(CalibrationReport))]
[JsonSerializable(typeof(InspectionReport))]
[JsonSerializable(typeof(IReadOnlyDictionary<string, string>))]
public sealed partial class ReportJson : JsonSerializerContext;
