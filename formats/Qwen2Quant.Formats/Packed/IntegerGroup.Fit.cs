using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Formats.Packed;

/// <summary>
/// The search for scale and zero of a group, by the weighted squared error. A trial takes a part of the range that reaches all values; under its codes the best scale is
/// A / B, of the sums of weight x value x (code - zero) and weight x (code - zero)^2, and leaves an error of the weighted squares less A^2 / B.
/// Sums run over 16 lanes that are folded in one order, whatever the processor's vectors.
/// </summary>
public sealed partial class IntegerGroup
{
    // 1.5 x 2^23: sums with it are rounded to integers, ties to even.
    private const float Rounding = 12582912;

    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        float low = 0, high = 0;
        foreach (float value in block) (low, high) = (MathF.Min(low, value), MathF.Max(high, value));
        (int trials, float least) = (effort, Grid.Bits) switch
        {
            (Effort.High, _) => (64, 0.4f),
            (Effort.Normal, 8) => (12, 0.94f),
            (Effort.Normal, _) => (20, Grid.Bits == 2 ? 0.4f : 0.6f),
            (_, 8) => (6, 0.96f),
            _ => (8, Grid.Bits == 2 ? 0.4f : 0.65f),
        };
        // A group of zeros: any scale stands for it; 1 keeps readers that divide by it out of trouble.
        (parameters[0], parameters[1]) = (1, Grid.MiddleZero);
        if (low == high) return;
        int middle = Grid.MiddleZero, greatest = Grid.GreatestCode;
        float whole = Grid.IsSymmetric ? MathF.Max(-low / middle, high / (greatest - middle)) : (high - low) / greatest;
        float best = float.NegativeInfinity;
        for (int trial = 0; trial < trials; trial++)
        {
            float scale = whole * (1 - ((1 - least) * trial / (trials - 1)));
            if (!(scale > 0) || !float.IsFinite(1 / scale)) continue;
            int zero = Grid.IsSymmetric ? middle : (int)Math.Clamp(MathF.Round(-low / (high - low) * greatest), Grid.LeastZero, greatest);
            Keep(block, importance, scale, zero, ref best, parameters);
            if (Grid.IsSymmetric || effort == Effort.Fast) continue;
            if (zero > Grid.LeastZero) Keep(block, importance, scale, zero - 1, ref best, parameters);
            if (zero < greatest) Keep(block, importance, scale, zero + 1, ref best, parameters);
        }

        float fitted = Rounded(parameters[0]);
        // The least scale that can be stored, where the best rounds to nothing.
        parameters[0] = fitted > 0 ? fitted : Rounded(float.Epsilon) is > 0 and float tiny ? tiny : 1;
    }

    private void Keep(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, float scale, int zero, ref float best, Span<float> parameters)
    {
        (float product, float square) = Sums(block, importance, 1 / scale, -zero, Grid.GreatestCode - zero);
        float gain = product * product / square;
        if (!(gain > best) || !(product > 0)) return;
        best = gain;
        (parameters[0], parameters[1]) = (product / square, zero);
    }

    private static (float Product, float Square) Sums(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, float inverse, float least, float greatest)
    {
        Vector512<float> products = default, squares = default, rounding = Vector512.Create(Rounding), low = Vector512.Create(least), high = Vector512.Create(greatest), scale = Vector512.Create(inverse);
        for (int i = 0; i < block.Length; i += 16)
        {
            Vector512<float> value = Vector512.Create(block.Slice(i, 16));
            Vector512<float> code = Vector512.Min(Vector512.Max((value * scale + rounding) - rounding, low), high);
            Vector512<float> weighted = importance.IsEmpty ? code : code * Vector512.Create(importance.Slice(i, 16));
            products += weighted * value;
            squares += weighted * code;
        }

        return (Fold(products), Fold(squares));
    }

    private static float Fold(Vector512<float> lanes)
    {
        float sum = 0;
        for (int i = 0; i < 16; i++) sum += lanes[i];
        return sum;
    }
}
