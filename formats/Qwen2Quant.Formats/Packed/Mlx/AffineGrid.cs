using System.Numerics.Tensors;
using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Formats.Packed.Mlx;

/// <summary>
/// The grid of <see cref="AffineGridType"/>, whose values are <c>scale * code + bias</c>. Scale and bias are searched for: the line of least weighted squared error, then
/// by that error the best of what can be stored near it and of MLX's own choice.
/// </summary>
/// <param name="bits">2, 3, 4, 5, 6 or 8.</param>
/// <param name="stored">Scales and biases as they are stored, in 16 bits.</param>
internal readonly struct AffineGrid(int bits, int groupLength, StoredScale stored) : IGroupGrid
{
    /// <summary>MLX's least scale.</summary>
    private const float LeastScale = 1e-7f;

    public static bool HasOrigins => true;

    public int Bits => bits;

    public int GroupLength => groupLength;

    public int CodesOffset => AffineGridType.CodesOffset;

    public StoredScale Stored => stored;

    public int LargestCode { get; } = (1 << bits) - 1;

    public (float Scale, float Origin) Read(ReadOnlySpan<byte> block) => (stored.Read(block), stored.Read(block[sizeof(ushort)..]));

    public void Write(float scale, float bias, Span<byte> block)
    {
        stored.Write(scale, block);
        stored.Write(bias, block[sizeof(ushort)..]);
    }

    /// <summary>MLX chooses codes under its parameters before they are stored.</summary>
    public (float Scale, float Origin) ForCodes(ReadOnlySpan<float> group, Effort effort, float scale, float bias)
    {
        if (effort == Effort.Reference)
        {
            Mlx(Lanes1.Broadcast(TensorPrimitives.Min(group)), Lanes1.Broadcast(TensorPrimitives.Max(group)), out Lanes1 step, out Lanes1 edge);
            Lanes1.Store(step, ref scale);
            Lanes1.Store(edge, ref bias);
        }

        return (scale == 0 ? LeastScale : scale, bias);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public T Code<T>(T value, T scale, T bias) where T : unmanaged, ILanes<T> => LaneMath.Clamp(LaneMath.RoundToEven((value - bias) / scale), 0, LargestCode);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public T Value<T>(T code, T scale, T bias) where T : unmanaged, ILanes<T> => (code * scale) + bias;

    public void Fit<T>(ref readonly float values, ref readonly float weights, bool hasImportance, Effort effort, ref float scales, ref float biases) where T : unmanaged, ILanes<T>
    {
        int length = groupLength;
        AffineSearch.Totals<T> totals = AffineSearch.Sum<T>(in values, in weights, length, isFree: true);
        Mlx(totals.Low, totals.High, out T scale, out T bias);
        (scale, bias) = (stored.Round(scale), stored.Round(bias));
        if (effort != Effort.Reference)
        {
            AffineSearch.Measure(in values, in weights, length, LargestCode, scale, LaneMath.Negate(bias), out T error);
            (T step, T offset) = AffineSearch.Start(in values, in weights, length, LargestCode, true, in totals, Start(effort));
            for (int n = -Neighbours; n <= Neighbours; n++)
            {
                T tried = stored.Round(step * T.Broadcast(1 + (n / 256f)));
                T origin = stored.Round(LaneMath.Negate(AffineSearch.Offset(in values, in weights, length, LargestCode, in totals, tried, offset)));
                AffineSearch.Measure(in values, in weights, length, LargestCode, tried, LaneMath.Negate(origin), out T found);
                T better = T.Greater(error, found);
                error = T.Select(better, found, error);
                scale = T.Select(better, tried, scale);
                bias = T.Select(better, origin, bias);
            }
        }

        T.Store(scale, ref scales);
        T.Store(bias, ref biases);
    }

    /// <summary>Scales beside the nearest one that are tried, by steps of their last place: among many codes its rounding moves the ends of the grid.</summary>
    private int Neighbours => LargestCode > 15 && !stored.IsHalf ? 1 : 0;

    /// <summary>What is tried before scale and bias are rounded.</summary>
    private static AffineStart Start(Effort effort) => effort switch
    {
        Effort.Fast => new(4, 1, 3),
        Effort.Normal => new(12, 3, 2),
        _ => new(48, 5, 3),
    };

    /// <summary>MLX's affine quantization, before its parameters are stored: an end of the range is met exactly, and zero is a code.</summary>
    private void Mlx<T>(T low, T high, out T scale, out T bias) where T : unmanaged, ILanes<T>
    {
        scale = T.Max((high - low) / T.Broadcast(LargestCode), T.Broadcast(LeastScale));
        T isLow = T.Greater(LaneMath.Abs(low), LaneMath.Abs(high));
        T edge = T.Select(isLow, low, high);
        scale = T.Select(isLow, scale, LaneMath.Negate(scale));
        T code = Nearest(edge / scale);
        T isNone = T.Equal(code, T.Broadcast(0));
        scale = T.Select(isNone, scale, edge / code);
        bias = T.Select(isNone, T.Broadcast(0), edge);
    }

    /// <summary>The nearest integer, ties to even, whatever the magnitude: a group far from zero has its edge at code millions.</summary>
    private static T Nearest<T>(T value) where T : unmanaged, ILanes<T>
    {
        // From 2^23 on every float is an integer.
        T whole = T.Broadcast(8388608f), sign = value & T.Broadcast(-0f), magnitude = LaneMath.Abs(value);
        return T.Select(T.Greater(whole, magnitude), (magnitude + whole) - whole, magnitude) | sign;
    }
}
