using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q8_0</c>: half d, 32 signed bytes; value <c>q * d</c>. ggml writes it without a search and without regard to importance, and so do we up to <see cref="Effort.Fast"/>.</summary>
internal readonly struct Q8_0 : ICodecFormat, IIntegerFormat
{
    private const int CodeOffset = 128;

    public static string Name => "Q8_0";
    public static int BlockValues => 32;
    public static int BlockBytes => 34;
    public static int BatchBlocks => Block32.Batch;
    public static float LargestMagnitude => 127 * 65504f;
    public static GridShape Shape => new(32, 32, 1, 256, 1);

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        T scale = T.Broadcast(HalfAt(in block, 0));
        for (int j = 0; j < 32; j += T.Width) T.Store(T.ToFloat(T.LoadSBytes(ref ByteAt(in block, 2 + j))) * scale, ref Unsafe.Add(ref values, j));
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
    public static Vector512<short> Codes(ref readonly byte block, int run) => Shorts.Widen(Shorts.Load(ref ByteAt(in block, 2)).AsSByte());

    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks)
        where T : unmanaged, ILanes<T>
    {
        ref float from = ref MemoryMarshal.GetReference(values);
        int blockCount = values.Length / 32;
        Span<float> scales = stackalloc float[Block32.Batch];
        Span<float> inverses = stackalloc float[Block32.Batch];
        Span<ushort> halves = stackalloc ushort[Block32.Batch];
        if (effort > Effort.Fast)
        {
            FindScales<T>(values, importance, effort, scales);
            Block32.StoredScales<T>(ref scales[0], ref inverses[0], ref halves[0]);
        }
        else
        {
            for (int b = 0; b < blockCount; b++) scales[b] = Block32.Peak<T>(ref Unsafe.Add(ref from, b * 32)) / 127;
            Block32.Scale<T>(ref scales[0], ref inverses[0], ref halves[0]);
        }

        for (int b = 0; b < blockCount; b++)
        {
            ref byte block = ref Unsafe.Add(ref blocks, b * BlockBytes);
            Unsafe.WriteUnaligned(ref block, halves[b]);
            T inverse = T.Broadcast(inverses[b]);
            for (int j = 0; j < 32; j += T.Width)
            {
                T scaled = LaneMath.Clamp(Block32.At<T>(ref from, (b * 32) + j) * inverse, -128, 127);
                T.StoreBytes(LaneMath.RoundAwayToInt(scaled), ref Unsafe.Add(ref block, 2 + j));
            }
        }
    }

    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<float> scales = stackalloc float[Block32.Batch];
        scales[0] = Block32.Peak<Lanes1>(in block[0]) / 127;
        if (effort > Effort.Fast) FindScales<Lanes1>(block, importance, effort, scales);
        parameters[0] = (float)(Half)scales[0];
    }

    public static float StoreParameter(int parameter, float value) => StoredHalf.Round(value);

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => Levels.Scaled(parameters[0], 256, CodeOffset);

    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        MemoryMarshal.Write(block, (Half)parameters[0]);
        for (int j = 0; j < 32; j++) block[2 + j] = (byte)(codes[j] - CodeOffset);
    }

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        parameters[0] = HalfAt(in block[0], 0);
        for (int j = 0; j < 32; j++) codes[j] = (byte)(block[2 + j] + CodeOffset);
    }

    [SkipLocalsInit]
    private static void FindScales<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort, Span<float> scales) where T : unmanaged, ILanes<T>
    {
        Span<float> lanes = stackalloc float[32 * Search.Stride];
        Span<float> weightLanes = stackalloc float[32 * Search.Stride];
        Search.Transpose(values, 32, lanes);
        if (!importance.IsEmpty) Search.Transpose(importance, 32, weightLanes);
        ReadOnlySpan<float> weights = importance.IsEmpty ? SymmetricSearch.Ones : weightLanes;
        ReadOnlySpan<float> trials = SymmetricSearch.TrialsOfStored(!importance.IsEmpty, effort);
        for (int g = 0; g < Block32.Batch; g += T.Width) SymmetricSearch.StoredScales<T>(in lanes[g], in weights[g], 32, CodeOffset, trials, ref scales[g]);
    }
}
