using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Formats.Packed.Float;

/// <summary>Runs of E4M3 values under one scale; the same bits at every vector width. What does not fill <see cref="SixteenSums.Count"/> lanes goes through a padded buffer.</summary>
internal static class Fp8Rows
{
    private const int Run = SixteenSums.Count;

    private static readonly float[] Ones = [.. Enumerable.Repeat(1f, Run)];

    public static void Decode(SimdLevel level, ReadOnlySpan<byte> codes, float scale, Span<float> values)
    {
        int whole = codes.Length / Run * Run;
        DecodeWhole(level, codes[..whole], scale, values[..whole]);
        if (whole == codes.Length) return;
        Span<byte> rest = stackalloc byte[Run];
        Span<float> decoded = stackalloc float[Run];
        rest.Clear();
        codes[whole..].CopyTo(rest);
        DecodeWhole(level, rest, scale, decoded);
        decoded[..(codes.Length - whole)].CopyTo(values[whole..]);
    }

    public static void Encode(SimdLevel level, ReadOnlySpan<float> values, float scale, Span<byte> codes)
    {
        int whole = values.Length / Run * Run;
        EncodeWhole(level, values[..whole], scale, codes[..whole]);
        if (whole == values.Length) return;
        Span<float> rest = stackalloc float[Run];
        Span<byte> encoded = stackalloc byte[Run];
        rest.Clear();
        values[whole..].CopyTo(rest);
        EncodeWhole(level, rest, scale, encoded);
        encoded[..(values.Length - whole)].CopyTo(codes[whole..]);
    }

    /// <summary>The sum of weight x (value - nearest level)^2, in units of the scale's square.</summary>
    /// <param name="weights">Empty for ones, or one for each value.</param>
    public static float Error(SimdLevel level, ReadOnlySpan<float> values, ReadOnlySpan<float> weights, float scale)
    {
        Span<float> sums = stackalloc float[Run];
        sums.Clear();
        int whole = values.Length / Run * Run;
        AddErrors(level, values[..whole], weights, scale, sums);
        if (whole < values.Length)
        {
            Span<float> rest = stackalloc float[Run], restWeights = stackalloc float[Run];
            rest.Clear();
            values[whole..].CopyTo(rest);
            restWeights.Fill(1);
            if (!weights.IsEmpty) weights[whole..].CopyTo(restWeights);
            AddErrors(level, rest, restWeights, scale, sums);
        }

        return SixteenSums.Fold<Lanes1>(ref sums[0]);
    }

    private static void DecodeWhole(SimdLevel level, ReadOnlySpan<byte> codes, float scale, Span<float> values)
    {
        if (level >= SimdLevel.Avx512) Decode<Lanes512>(codes, scale, values);
        else if (level >= SimdLevel.Avx2) Decode<Lanes256>(codes, scale, values);
        else if (level >= SimdLevel.Vector128) Decode<Lanes128>(codes, scale, values);
        else Decode<Lanes1>(codes, scale, values);
    }

    private static void EncodeWhole(SimdLevel level, ReadOnlySpan<float> values, float scale, Span<byte> codes)
    {
        if (level >= SimdLevel.Avx512) Encode<Lanes512>(values, scale, codes);
        else if (level >= SimdLevel.Avx2) Encode<Lanes256>(values, scale, codes);
        else if (level >= SimdLevel.Vector128) Encode<Lanes128>(values, scale, codes);
        else Encode<Lanes1>(values, scale, codes);
    }

    private static void AddErrors(SimdLevel level, ReadOnlySpan<float> values, ReadOnlySpan<float> weights, float scale, Span<float> sums)
    {
        if (level >= SimdLevel.Avx512) AddErrors<Lanes512>(values, weights, scale, sums);
        else if (level >= SimdLevel.Avx2) AddErrors<Lanes256>(values, weights, scale, sums);
        else if (level >= SimdLevel.Vector128) AddErrors<Lanes128>(values, weights, scale, sums);
        else AddErrors<Lanes1>(values, weights, scale, sums);
    }

    private static void Decode<T>(ReadOnlySpan<byte> codes, float scale, Span<float> values) where T : unmanaged, ILanes<T>
    {
        T step = T.Broadcast(scale);
        for (int i = 0; i < codes.Length; i += T.Width) T.Store(Float8.FromE4M3(T.LoadBytes(in codes[i])) * step, ref values[i]);
    }

    private static void Encode<T>(ReadOnlySpan<float> values, float scale, Span<byte> codes) where T : unmanaged, ILanes<T>
    {
        T step = T.Broadcast(scale);
        for (int i = 0; i < values.Length; i += T.Width) T.StoreBytes(Float8.ToE4M3(T.Load(in values[i]) / step), ref codes[i]);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void AddErrors<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> weights, float scale, Span<float> sums) where T : unmanaged, ILanes<T>
    {
        bool isWeighed = !weights.IsEmpty;
        ReadOnlySpan<float> factors = isWeighed ? weights : Ones;
        T inverse = T.Broadcast(1 / scale);
        for (int lane = 0; lane < Run; lane += T.Width)
        {
            T sum = T.Load(in sums[lane]);
            for (int i = lane; i < values.Length; i += Run)
            {
                T magnitude = LaneMath.Abs(T.Load(in values[i])) * inverse;
                T difference = magnitude - Float8.RoundE4M3(magnitude);
                sum = T.MultiplyAdd(difference * T.Load(in factors[isWeighed ? i : lane]), difference, sum);
            }

            T.Store(sum, ref sums[lane]);
        }
    }
}
