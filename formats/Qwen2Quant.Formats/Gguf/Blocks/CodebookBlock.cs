using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// The five ggml types whose 256 values are rows of a codebook with signs, in sub-blocks with 4-bit scales under one half d. Parameters of a block are d and its
/// scales; the code of a value is the place of its signed level in ascending order.
/// </summary>
internal readonly partial struct CodebookBlock<TLayout> : ICodebookFormat where TLayout : struct, ICodebookLayout
{
    public static string Name => TLayout.Name;
    public static int BlockValues => 256;
    public static int BlockBytes => TLayout.BlockBytes;
    public static int BatchBlocks => Search.Stride / TLayout.SubBlocks;

    /// <summary>Half of what d can hold: a search may put the greatest value between two levels.</summary>
    public static float LargestMagnitude => TLayout.Step(65504f, 15) * TLayout.Codebook.Levels[^1] / 2;

    public static GridShape Shape => new(256, SubLength, TLayout.HasEvenSigns ? 8 : TLayout.RowLength, 2 * TLayout.Codebook.Levels.Length, 1 + TLayout.SubBlocks);

    private static int SubLength => 256 / TLayout.SubBlocks;
    private static int Rows => 256 / TLayout.RowLength;

    /// <summary>All levels of both signs, ascending.</summary>
    private static float[] SignedLevels { get; } = [.. Enumerable.Reverse(TLayout.Codebook.Levels).Select(level => -level), .. TLayout.Codebook.Levels];

    private static ReadOnlySpan<int> LaneBits => [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768];

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        float d = HalfAt(in block, 0);
        ReadOnlySpan<ulong> rows = TLayout.Codebook.PackedRows;
        T laneBits = T.Load(ref Unsafe.As<int, float>(ref Unsafe.AsRef(in LaneBits[0])));
        Span<ulong> eights = stackalloc ulong[2];
        for (int half = 0; half < 16; half++)
        {
            // Sixteen values: a whole sub-block or one half of it.
            for (int e = 0; e < 2; e++)
            {
                int eight = (2 * half) + e;
                eights[e] = TLayout.RowLength == 8
                    ? rows[TLayout.IndexAt(in block, eight)]
                    : rows[TLayout.IndexAt(in block, 2 * eight)] | (rows[TLayout.IndexAt(in block, (2 * eight) + 1)] << 32);
            }

            int signs = TLayout.SignsAt(in block, 2 * half) | (TLayout.SignsAt(in block, (2 * half) + 1) << 8);
            T step = T.Broadcast(TLayout.Step(d, TLayout.ScaleAt(in block, half * TLayout.SubBlocks / 16)));
            ref byte levels = ref Unsafe.As<ulong, byte>(ref eights[0]);
            for (int l = 0; l < 16; l += T.Width)
            {
                T negative = T.GreaterInt(T.BroadcastInt(signs >> l) & laneBits, T.BroadcastInt(0)) & T.BroadcastInt(int.MinValue);
                T magnitude = step * T.ToFloat(T.LoadBytes(ref Unsafe.Add(ref levels, l)));
                T.Store(Xor(magnitude, negative), ref Unsafe.Add(ref values, (16 * half) + l));
            }
        }
    }

    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        Span<byte> output = MemoryMarshal.CreateSpan(ref blocks, values.Length / 256 * BlockBytes);
        if (effort != Effort.Reference)
        {
            EncodeSearched<T>(values, importance, effort, output);
            return;
        }

        CodebookReference reference = new(TLayout.Codebook, TLayout.Reference, TLayout.SubBlocks, TLayout.HasEvenSigns);
        CodebookCodes codes = new(stackalloc ushort[Rows], stackalloc byte[32], stackalloc byte[TLayout.SubBlocks]);
        for (int start = 0; start < values.Length; start += 256)
        {
            float d = reference.Encode(values.Slice(start, 256), importance.IsEmpty ? importance : importance.Slice(start, 256), codes);
            Store(d, codes, output.Slice(start / 256 * BlockBytes, BlockBytes));
        }
    }

    /// <summary>The parameters of the encoded block.</summary>
    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<byte> encoded = stackalloc byte[BlockBytes];
        SearchedFit.Encode<CodebookBlock<TLayout>>(block, importance, effort, encoded);
        UnpackParameters(encoded, parameters);
    }

    public static float StoreParameter(int parameter, float value) => parameter == 0 ? StoredHalf.Round(value) : Parameters.Integer(value, 0, 15);

    public static (int First, int Count) SubBlocksOf(int parameter) => parameter == 0 ? Parameters.OfBlock : (parameter - 1, 1);

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => new(-0f, TLayout.Step(parameters[0], (int)parameters[1 + subBlock]), SignedLevels.Length, Table: SignedLevels);

    /// <exception cref="ArgumentException">The codes of a row are not in the codebook.</exception>
    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        CodebookCodes integers = new(stackalloc ushort[Rows], stackalloc byte[32], stackalloc byte[TLayout.SubBlocks]);
        Span<byte> fields = stackalloc byte[TLayout.RowLength];
        int levelCount = SignedLevels.Length / 2;
        integers.Signs.Clear();
        for (int i = 0; i < 256; i++)
        {
            bool isNegative = codes[i] < levelCount;
            if (isNegative) integers.Signs[i >> 3] |= (byte)(1 << (i & 7));
            fields[i % TLayout.RowLength] = (byte)(isNegative ? levelCount - 1 - codes[i] : codes[i] - levelCount);
            if ((i + 1) % TLayout.RowLength != 0) continue;
            int index = TLayout.Codebook.Find(TLayout.Codebook.WordOf(fields));
            if (index < 0) throw new ArgumentException($"codes up to value {i} are no row of the codebook of {Name}", nameof(codes));
            integers.Indices[i / TLayout.RowLength] = (ushort)index;
        }

        for (int k = 0; k < TLayout.SubBlocks; k++) integers.Scales[k] = (byte)parameters[1 + k];
        Store(parameters[0], integers, block);
    }

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        int levelCount = SignedLevels.Length / 2;
        for (int i = 0; i < 256; i++)
        {
            (int row, int j) = Math.DivRem(i, TLayout.RowLength);
            int field = TLayout.Codebook.FieldOf(TLayout.Codebook.Words[TLayout.IndexAt(in block[0], row)], j);
            bool isNegative = ((TLayout.SignsAt(in block[0], i >> 3) >> (i & 7)) & 1) != 0;
            codes[i] = (byte)(isNegative ? levelCount - 1 - field : levelCount + field);
        }

        UnpackParameters(block, parameters);
    }

    private static void UnpackParameters(ReadOnlySpan<byte> block, Span<float> parameters)
    {
        parameters[0] = HalfAt(in block[0], 0);
        for (int k = 0; k < TLayout.SubBlocks; k++) parameters[1 + k] = TLayout.ScaleAt(in block[0], k);
    }

    private static void Store(float d, in CodebookCodes codes, Span<byte> block)
    {
        PutUShort(BitConverter.HalfToUInt16Bits((Half)d), block, 0);
        TLayout.Store(codes, block);
    }

    /// <summary>Flips the sign where <paramref name="signBit"/> has it: the integer sum of sign bits carries out of the lane.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static T Xor<T>(T value, T signBit) where T : unmanaged, ILanes<T> => T.AddInt(value, signBit);
}
