using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Quantization;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>What GPTQ of a model needs besides its plan.</summary>
/// <param name="Text">What the Gram matrices are collected on.</param>
/// <param name="AllExperts">Every expert sees every token.</param>
/// <param name="Resume">Goes on at the layer where an interrupted run with the same settings ended.</param>
public sealed record GptqJob(EvaluationText Text, CalibrationOptions Calibration, GptqOptions Options, bool AllExperts = false, bool Resume = false);
