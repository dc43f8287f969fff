namespace Qwen2Quant.Quantization;

/// <summary>Errors of rows under a Hessian, summed: <c>trace (W - Q) H (W - Q)^T</c>.</summary>
/// <param name="Before">Of the type's own encoder with the diagonal as importance.</param>
/// <param name="After">Of what was written.</param>
/// <param name="Square">Of zeros: <c>trace W H W^T</c>.</param>
public readonly record struct GptqErrors(double Before, double After, double Square)
{
    public double RelativeBefore => Before == 0 ? 0 : Before / Square;

    public double RelativeAfter => After == 0 ? 0 : After / Square;

    public static GptqErrors operator +(GptqErrors left, GptqErrors right) => new(left.Before + right.Before, left.After + right.After, left.Square + right.Square);
}
