using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Quantization;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>What choosing the codes of whole layers needs besides the plan.</summary>
/// <param name="Text">What the Gram matrices are collected on; null with <paramref name="StatisticsPath"/>.</param>
/// <param name="StatisticsPath">A file of Gram matrices of the model as it is: each matrix is then solved by itself, the parallel schedule. Null for the sequential one.</param>
/// <param name="AllExperts">Every expert sees every token.</param>
/// <param name="Method">How codes are chosen, and what is done to weights before.</param>
/// <param name="Smoothing">SmoothQuant's exponent of the activations.</param>
public sealed record SolvingJob(
    EvaluationText? Text, string? StatisticsPath, CalibrationOptions Calibration, GptqOptions Options, bool AllExperts = false, SolvingMethod? Method = null, double Smoothing = 0.5)
{
    public SolvingMethod Method { get; init; } = Method ?? SolvingMethod.Gptq;
}

/// <summary>How inputs and weights of a layer are rescaled against one another before codes are chosen; the function stays.</summary>
public enum Rescaling
{
    None,

    /// <summary>Scales that lose least on the calibration text (<see cref="AwqSearch"/>).</summary>
    Awq,

    /// <summary>Scales that move the range of activations into the weights (Xiao et al. 2023).</summary>
    SmoothQuant,
}

/// <summary>A method that goes layer by layer over a calibration text.</summary>
/// <param name="Name">As <c>--method</c> and the report spell it.</param>
/// <param name="Compensates">Codes make up for one another's errors (<see cref="GptqSolver"/>); else each is rounded by itself.</param>
public sealed record SolvingMethod(string Name, Rescaling Rescaling, bool Compensates)
{
    public static SolvingMethod Gptq { get; } = new(GptqSolver.Name, Rescaling.None, true);

    public static IReadOnlyList<SolvingMethod> All { get; } =
    [
        Gptq,
        new("awq", Rescaling.Awq, false),
        new("awq+gptq", Rescaling.Awq, true),
        new("smoothquant", Rescaling.SmoothQuant, false),
        new("smoothquant+gptq", Rescaling.SmoothQuant, true),
    ];

    /// <summary>The method of that name in any case, or null.</summary>
    public static SolvingMethod? Find(string name) => All.FirstOrDefault(method => method.Name.Equals(name, StringComparison.OrdinalIgnoreCase));
}
