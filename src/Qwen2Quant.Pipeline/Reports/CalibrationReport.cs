using Qwen2Quant.Core.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Reports;

/// <summary>What <c>calibrate</c> prints as JSON.</summary>
/// <param name="Format"><c>gguf</c> or <c>dat</c>.</param>
/// <param name="Data">Name of the text; absent when only files were added.</param>
/// <param name="Inputs">Files whose statistics were added.</param>
/// <param name="Entries">Tensors with statistics.</param>
/// <param name="Chunks">Windows behind the statistics, those of the inputs included.</param>
/// <param name="Context">Tokens of one window.</param>
/// <param name="Tokens">Tokens of the text that were run.</param>
/// <param name="Perplexity">Of the second half of each window, as <c>perplexity</c> measures it: a figure to see that the model works.</param>
/// <param name="Activations">The largest inputs of the linear layers on the text.</param>
public sealed record CalibrationReport(
    string Version,
    string Source,
    string Output,
    string Format,
    string Depth,
    string? Data,
    IReadOnlyList<string> Inputs,
    long Bytes,
    int Entries,
    int Chunks,
    int Context,
    long Tokens,
    double? Perplexity,
    double? StandardError,
    double Seconds,
    double? TokensPerSecond,
    IReadOnlyList<ActivationMaximum>? Activations,
    IReadOnlyList<QuantEvent> Events);
