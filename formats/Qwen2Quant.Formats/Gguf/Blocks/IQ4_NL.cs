using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_iq4_nl</c>: half d, 16 bytes of nibbles; value <c>d * table[q]</c>.</summary>
internal readonly struct IQ4_NL : ICodecFormat, IIntegerFormat
{
    internal static readonly float[] Table = NibbleTable.Iq4.ToArray();

    public static string Name => "IQ4_NL";
    public static int BlockValues => 32;
    public static int BlockBytes => 18;
    public static int BatchBlocks => Search.Stride;

    /// <summary>d is about 1/127 of the extreme; one that importance fits to small values on small codes may be several times as large.</summary>
    public static float LargestMagnitude => 65504f * 16;

    public static GridShape Shape => new(32, 32, 1, 16, 1);

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        NibbleTable.Decode<T>(ref ByteAt(in block, 2), in NibbleTable.Iq4[0], HalfAt(in block, 0), ref values);
    }

    public static bool HasOrigins => false;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void UnpackScales(ref readonly byte block, ref float scales, ref float origins, int stride) => scales = HalfAt(in block, 0);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static unsafe Vector256<float> EightScales(byte* blocks, out Vector256<float> origins)
    {
        origins = default;
        return EightHalves.At(blocks, BlockBytes);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<short> Codes(ref readonly byte block, int run) => Shorts.Lookup(ref ByteAt(in block, 2), NibbleTable.Iq4Integers);

    /// <summary>ggml's codes are nearest under the scale before it is rounded.</summary>
    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        Span<float> scales = stackalloc float[Search.Stride];
        FindScales<T>(values, importance, effort, scales);
        for (int b = 0; b < values.Length / 32; b++)
        {
            ref byte block = ref Unsafe.Add(ref blocks, b * BlockBytes);
            Unsafe.WriteUnaligned(ref block, (Half)scales[b]);
            Iq4Search.StoreNibbles<T>(in values[b * 32], StoredHalf.Inverse(scales[b]), ref Unsafe.Add(ref block, 2));
        }
    }

    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<float> scales = stackalloc float[Search.Stride];
        FindScales<Lanes1>(block, importance, effort, scales);
        parameters[0] = (float)(Half)scales[0];
    }

    public static float StoreParameter(int parameter, float value) => StoredHalf.Round(value);

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => new(0, parameters[0], 16, 0, Table);

    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        MemoryMarshal.Write(block, (Half)parameters[0]);
        NibbleTable.Pack(codes, block[2..]);
    }

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        parameters[0] = HalfAt(in block[0], 0);
        NibbleTable.Unpack(block[2..], codes);
    }

    /// <summary>Unrounded scales for the reference, stored ones for a search.</summary>
    private static void FindScales<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort, Span<float> scales) where T : unmanaged, ILanes<T>
    {
        int count = values.Length / 32;
        Span<float> lanes = stackalloc float[Iq4Search.Length * Search.Stride];
        Span<float> weights = stackalloc float[Iq4Search.Length * Search.Stride];
        Iq4Search.Transpose<T>(values, importance, lanes, weights);
        if (effort == Effort.Reference)
        {
            Span<float> variances = stackalloc float[Search.Stride];
            for (int g = 0; g < count; g += T.Width)
            {
                T sum = T.Broadcast(0);
                for (int i = 0; i < 32; i++) sum += Search.At<T>(in lanes[g], i) * Search.At<T>(in lanes[g], i);
                T.Store(sum * T.Broadcast(2f / 32), ref variances[g]);
            }

            Iq4Search.ReferenceWeights<T>(lanes, variances, !importance.IsEmpty, weights);
            for (int g = 0; g < count; g += T.Width) Iq4Search.Reference<T>(in lanes[g], in weights[g], ref scales[g]);
            return;
        }

        Span<float> curvatures = stackalloc float[Search.Stride];
        for (int g = 0; g < count; g += T.Width)
        {
            Iq4Search.Scales<T>(in lanes[g], in weights[g], effort, ref scales[g], ref curvatures[g]);
            T.Store(StoredHalf.Round(T.Load(ref scales[g])), ref scales[g]);
            if (effort != Effort.Fast) Iq4Search.Neighbours<T>(in lanes[g], in weights[g], effort == Effort.High ? 4 : 1, ref scales[g]);
            Iq4Search.RestoreGains<T>(in lanes[g], in weights[g], ref scales[g]);
        }
    }
}
