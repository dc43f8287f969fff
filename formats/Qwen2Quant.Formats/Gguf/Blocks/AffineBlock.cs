using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using static Qwen2Quant.Formats.Gguf.Blocks.Field;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>What tells Q2_K, Q4_K and Q5_K apart.</summary>
internal interface IAffineFormat : IBlockFormat
{
    /// <summary>Values that share a scale and a minimum: 16 or 32.</summary>
    static abstract int SubLength { get; }

    /// <summary>The greatest code.</summary>
    static abstract int CodeLimit { get; }

    /// <summary>The greatest integer scale or minimum: 15 (packed as nibbles) or 63.</summary>
    static abstract int ScaleLimit { get; }

    static abstract int ScaleOffset { get; }

    /// <summary>Offset of the halves d and dmin.</summary>
    static abstract int HalfOffset { get; }

    /// <summary>What ggml tries without importance.</summary>
    static abstract AffineTries Tries { get; }

    static abstract void PackCodes<T>(ref readonly byte codes, ref byte block) where T : unmanaged, ILanes<T>;

    static abstract void UnpackCodes(ReadOnlySpan<byte> block, Span<byte> codes);
}

/// <summary>
/// Blocks of 256 values <c>(d * scale) * q - dmin * min</c>. Parameters are d, dmin, the integer scales and the integer minima.
/// </summary>
internal readonly partial struct AffineBlock<TFormat> : ICodecFormat where TFormat : struct, IAffineFormat
{
    public static string Name => TFormat.Name;
    public static int BlockValues => 256;
    public static int BlockBytes => TFormat.BlockBytes;

    /// <summary>One sub-block a lane.</summary>
    public static int BatchBlocks => Search.Stride / SubBlocks;

    private static int SubBlocks => 256 / TFormat.SubLength;

    /// <summary>dmin, the least value over the limit of integer minima, must be a half; a search may exceed it by less than a factor of two.</summary>
    public static float LargestMagnitude => 65504f * TFormat.ScaleLimit / 2;

    public static GridShape Shape => new(256, TFormat.SubLength, 1, TFormat.CodeLimit + 1, 2 + (2 * SubBlocks));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T> => TFormat.DecodeBlock<T>(in block, ref values);

    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        Span<float> lanes = stackalloc float[TFormat.SubLength * Search.Stride];
        Span<float> weights = stackalloc float[TFormat.SubLength * Search.Stride];
        Search.Transpose(values, TFormat.SubLength, lanes);
        if (!importance.IsEmpty) Search.Transpose(importance, TFormat.SubLength, weights);
        if (effort == Effort.Reference) EncodeReference<T>(values, !importance.IsEmpty, lanes, weights, ref blocks);
        else EncodeSearched<T>(values, !importance.IsEmpty, lanes, weights, effort, ref blocks);
    }

    /// <summary>The parameters that the encoder stores.</summary>
    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<byte> encoded = stackalloc byte[BlockBytes];
        SearchedFit.Encode<AffineBlock<TFormat>>(block, importance, effort, encoded);
        UnpackParameters(encoded, parameters);
    }

    public static float StoreParameter(int parameter, float value) => parameter < 2 ? Parameters.Scale(value) : Parameters.Integer(value, 0, TFormat.ScaleLimit);

    public static (int First, int Count) SubBlocksOf(int parameter) => parameter < 2 ? Parameters.OfBlock : ((parameter - 2) % SubBlocks, 1);

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) =>
        new(-(parameters[1] * parameters[2 + SubBlocks + subBlock]), parameters[0] * parameters[2 + subBlock], TFormat.CodeLimit + 1);

    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        PackParameters(parameters, block);
        TFormat.PackCodes<Lanes1>(in codes[0], ref block[0]);
    }

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        UnpackParameters(block, parameters);
        TFormat.UnpackCodes(block, codes);
    }

    private static void PackParameters(ReadOnlySpan<float> parameters, Span<byte> block)
    {
        MemoryMarshal.Write(block[TFormat.HalfOffset..], (Half)parameters[0]);
        MemoryMarshal.Write(block[(TFormat.HalfOffset + 2)..], (Half)parameters[1]);
        ReadOnlySpan<float> scales = parameters.Slice(2, SubBlocks), minima = parameters.Slice(2 + SubBlocks, SubBlocks);
        if (TFormat.ScaleLimit == 63)
        {
            SixBitScales.Pack(scales, minima, block.Slice(TFormat.ScaleOffset, 12));
            return;
        }

        for (int k = 0; k < SubBlocks; k++) block[TFormat.ScaleOffset + k] = (byte)((int)scales[k] | ((int)minima[k] << 4));
    }

    private static void UnpackParameters(ReadOnlySpan<byte> block, Span<float> parameters)
    {
        parameters[0] = HalfAt(in block[0], TFormat.HalfOffset);
        parameters[1] = HalfAt(in block[0], TFormat.HalfOffset + 2);
        for (int k = 0; k < SubBlocks; k++)
        {
            byte nibbles = block[TFormat.ScaleOffset + k];
            (int scale, int minimum) = TFormat.ScaleLimit == 63 ? SixBitScales.At(in block[TFormat.ScaleOffset], k) : (nibbles & 15, nibbles >> 4);
            (parameters[2 + k], parameters[2 + SubBlocks + k]) = (scale, minimum);
        }
    }

    /// <summary>Codes of one sub-block under stored parameters.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void StoreCodes<T>(ref readonly float values, float step, float offset, ref byte codes) where T : unmanaged, ILanes<T>
    {
        T inverse = LaneMath.FiniteInverse(T.Broadcast(step));
        for (int l = 0; l < TFormat.SubLength; l += T.Width)
        {
            T code = LaneMath.RoundToEven(LaneMath.Clamp((Block32.At<T>(in values, l) + T.Broadcast(offset)) * inverse, 0, TFormat.CodeLimit));
            T.StoreBytes(T.ToInt(code), ref Unsafe.Add(ref codes, l));
        }
    }
}
