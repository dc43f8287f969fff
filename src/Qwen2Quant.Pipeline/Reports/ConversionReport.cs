using System.Text.Json.Serialization;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Reports;

/// <summary>One tensor of an output.</summary>
/// <param name="RequestedType">What the recipe asked for.</param>
/// <param name="Rmse">Root of the mean squared error of the stored values against the source's.</param>
/// <param name="RelativeError">Root of the squared error over the squared values.</param>
/// <param name="Solver">How the codes were chosen; <c>copy</c> where the bytes were taken over.</param>
/// <param name="TokensSeen">Tokens behind the importance of its columns, of the least seen expert; absent without importance.</param>
public sealed record TensorReport(string Name, string Type, string RequestedType, IReadOnlyList<long> Shape, long Bytes, double? Rmse, double? RelativeError, string Solver, long? TokensSeen = null);

/// <summary>What a conversion did; printed by <c>--json</c> and kept beside the output.</summary>
/// <param name="Version">Version of this program.</param>
/// <param name="Source">Name of the source model.</param>
/// <param name="Scheme">What was asked for, as <c>--to</c> spells it.</param>
/// <param name="Output">Path of the output.</param>
/// <param name="Bytes">Bytes of all its files.</param>
/// <param name="DryRun">True when nothing was written.</param>
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
    ComparisonResult? Validation = null);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    UseStringEnumConverter = true,
    WriteIndented = true)]
[JsonSerializable(typeof(ConversionReport))]
[JsonSerializable(typeof(CalibrationReport))]
[JsonSerializable(typeof(InspectionReport))]
public sealed partial class ReportJson : JsonSerializerContext;
