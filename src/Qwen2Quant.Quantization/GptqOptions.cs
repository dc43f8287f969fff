using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Quantization;

/// <summary>How GPTQ treats its Hessian.</summary>
public sealed record GptqOptions
{
    /// <summary>Added to the diagonal, as a share of its mean; raised tenfold while the sum is not positive definite.</summary>
    public double Damping { get; init; } = 0.01;

    /// <summary>Visits columns in falling order of the Hessian's diagonal. Parameters of blocks are fitted beforehand, so that storage keeps its order.</summary>
    public bool ActivationOrder { get; init; } = true;

    /// <summary>The options that belong to an effort.</summary>
    public static GptqOptions For(Effort effort) => new() { DescentPasses = effort switch { Effort.Fast => 0, Effort.High => 8, _ => 3 } };

    /// <summary>Passes of coordinate descent over the codes after compensation.</summary>
    public int DescentPasses { get; init; } = 3;
}
