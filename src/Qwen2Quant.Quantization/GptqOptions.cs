using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Quantization;

/// <summary>How GPTQ treats its Hessian.</summary>
public sealed record GptqOptions
{
    /// <summary>Added to the diagonal, as a share of its mean; raised tenfold while the sum is not positive definite.</summary>
    public double Damping { get; init; } = 0.01;

    /// <summary>
    /// Added to each element of the diagonal, as a share of it: all products of two channels count for less than their squares, by 1 / (1 + share). What the calibration
    /// text says about pairs of channels holds less well on other text than what it says about each.
    /// </summary>
    public double Shrinkage { get; init; } = 0.2;

    /// <summary>Visits columns in falling order of the Hessian's diagonal. Parameters of blocks are fitted beforehand, so that storage keeps its order.</summary>
    public bool ActivationOrder { get; init; } = true;

    /// <summary>
    /// Columns lie in storage as they are visited, in falling order of the diagonal, and blocks are cut from that order: GPTQ's <c>desc_act</c>. The solver then takes
    /// and gives rows in <see cref="GptqHessian.InputOrder"/>.
    /// </summary>
    public bool PermutesColumns { get; init; }

    /// <summary>
    /// How far weights are moved, before codes are chosen, to where they make up for what earlier matrices did to their inputs (<see cref="InputError"/>): 0 not at all,
    /// 1 as far as the calibration text says. All the way is too far on other text.
    /// </summary>
    public double InputCorrection { get; init; }

    /// <summary>The options that belong to an effort.</summary>
    public static GptqOptions For(Effort effort) => effort switch
    {
        Effort.Fast => new() { DescentPasses = 0, RefitPasses = 0 },
        Effort.High => new() { DescentPasses = 8, RefitPasses = 8, InputCorrection = 0.5 },
        _ => new(),
    };

    /// <summary>Passes of coordinate descent over the codes after compensation.</summary>
    public int DescentPasses { get; init; } = 3;

    /// <summary>Of these passes, how many follow a refit of the blocks' parameters under the Hessian with the codes fixed.</summary>
    public int RefitPasses { get; init; } = 3;
}
