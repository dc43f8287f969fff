using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Quantization;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>What GPTQ of a model needs besides its plan.</summary>
/// <param name="Text">What the Gram matrices are collected on; null with <paramref name="StatisticsPath"/>.</param>
/// <param name="StatisticsPath">A file of Gram matrices of the model as it is: each matrix is then solved by itself, the parallel schedule. Null for the sequential one.</param>
/// <param name="AllExperts">Every expert sees every token.</param>
/// <param name="Resume">Goes on at the layer where an interrupted run with the same settings ended.</param>
public sealed record GptqJob(EvaluationText? Text, string? StatisticsPath, CalibrationOptions Calibration, GptqOptions Options, bool AllExperts = false, bool Resume = false);
