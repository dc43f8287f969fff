using System.Buffers;
using System.Buffers.Binary;
using System.Collections.Concurrent;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Formats.Packed;

/// <summary>
/// Integers of 2, 3, 4 or 8 bits in groups of a row: value <c>scale * (code - zero)</c>. This is the grid of GPTQ, AWQ, compressed-tensors' and MLX's integer types;
/// how they lie in files is the matter of their layouts. In memory a block is one group: the scale in its stored precision, the zero unless it is
/// always the middle code, and the codes as <see cref="BitFields"/> packs them.
/// There is one object for each set of parameters, so that equal types are the same.
/// </summary>
public sealed class IntegerGridType : ElementType, IBlockCodec
{
    /// <summary>Decoded at a time.</summary>
    private const int ChunkValues = 256;

    private static readonly ConcurrentDictionary<(int, int, bool, ElementType, int), IntegerGridType> Known = new();

    private readonly IntegerGridSearch _search;

    private IntegerGridType(int bits, int groupLength, bool isSymmetric, ElementType scaleType, int leastZero)
    {
        (Bits, GroupLength, IsSymmetric, ScaleType, LeastZero) = (bits, groupLength, isSymmetric, scaleType, leastZero);
        _search = new IntegerGridSearch(LargestCode, isSymmetric, leastZero, HasHalfScales);
        Integers = new IntegerGridIntegers(this);
    }

    public int Bits { get; }

    /// <summary>Values that share a scale and a zero; a multiple of 32, up to a whole row.</summary>
    public int GroupLength { get; }

    /// <summary>True when every zero is the middle code, 2^(bits - 1), and is not stored.</summary>
    public bool IsSymmetric { get; }

    /// <summary>F16 or BF16.</summary>
    public ElementType ScaleType { get; }

    /// <summary>The least zero that is fitted: 1 for layouts that store the zero less one. What is read may have any.</summary>
    public int LeastZero { get; }

    public override string Name => $"W{Bits}G{GroupLength}{(IsSymmetric ? "" : "_ASYM")}{(HasHalfScales ? "" : "_BF16")}";
    public override int ValuesPerBlock => GroupLength;
    public override int BytesPerBlock => CodesOffset + (GroupLength / BitFields.Run * Bits);
    public override bool CanEncode => true;
    public override IntegerForm Integers { get; }

    /// <summary>A scale of one code less than half of them still holds the extreme.</summary>
    public override float LargestMagnitude => HasHalfScales ? StoredHalf.Largest * Math.Max(1, MiddleCode - 1) / 2 : float.MaxValue / 4;

    public GridShape Shape => new(GroupLength, GroupLength, 1, LargestCode + 1, IsSymmetric ? 1 : 2);

    /// <summary>First byte of the codes in a block.</summary>
    internal int CodesOffset => IsSymmetric ? 2 : 3;

    internal int LargestCode => (1 << Bits) - 1;

    internal int MiddleCode => 1 << (Bits - 1);

    private bool HasHalfScales => ReferenceEquals(ScaleType, PlainTypes.F16);

    /// <exception cref="ArgumentException">There is no such grid.</exception>
    public static IntegerGridType Of(int bits, int groupLength, bool isSymmetric, ElementType scaleType, int leastZero = 0)
    {
        if (bits is not (2 or 3 or 4 or 8)) throw new ArgumentException($"{bits} bits", nameof(bits));
        if (groupLength <= 0 || groupLength % BitFields.WordRun != 0) throw new ArgumentException($"a group of {groupLength} values", nameof(groupLength));
        if (!ReferenceEquals(scaleType, PlainTypes.F16) && !ReferenceEquals(scaleType, PlainTypes.BF16)) throw new ArgumentException($"scales of {scaleType}", nameof(scaleType));
        return Known.GetOrAdd((bits, groupLength, isSymmetric, scaleType, isSymmetric ? 0 : leastZero), static key => new IntegerGridType(key.Item1, key.Item2, key.Item3, key.Item4, key.Item5));
    }

    public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values) => Decode(Simd.Level, blocks, values);

    public override void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) => EncodeRow(Simd.Level, row, importance, effort, blocks);

    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<float> scales = stackalloc float[Search.Stride], zeros = stackalloc float[Search.Stride];
        FitGroups(Simd.Level, block, importance, effort, scales, zeros);
        parameters[0] = scales[0];
        if (!IsSymmetric) parameters[1] = zeros[0];
    }

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => Levels.Scaled(parameters[0], LargestCode + 1, IsSymmetric ? MiddleCode : (int)parameters[1]);

    public float Store(int parameter, float value)
    {
        if (parameter == 1) return Math.Clamp(MathF.Round(value), LeastZero, LargestCode);
        float scale = Math.Clamp(value, 0, LargestMagnitude);
        return HasHalfScales ? StoredHalf.Round(scale) : BitConverter.UInt32BitsToSingle((uint)BFloat16Rows.Narrow(scale) << 16);
    }

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        WriteHeader(parameters[0], IsSymmetric ? MiddleCode : (int)parameters[1], block);
        BitFields.Pack(codes, Bits, block[CodesOffset..]);
    }

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        parameters[0] = ScaleOf(block);
        if (!IsSymmetric) parameters[1] = block[2];
        BitFields.Unpack(block[CodesOffset..], Bits, codes);
    }

    internal float ScaleOf(ReadOnlySpan<byte> block)
    {
        ushort bits = BinaryPrimitives.ReadUInt16LittleEndian(block);
        return HasHalfScales ? Field.HalfAt(in block[0], 0) : BitConverter.UInt32BitsToSingle((uint)bits << 16);
    }

    internal int ZeroOf(ReadOnlySpan<byte> block) => IsSymmetric ? MiddleCode : block[2];

    internal void Decode(SimdLevel level, ReadOnlySpan<byte> blocks, Span<float> values)
    {
        CheckLengths(values.Length, blocks.Length);
        Span<byte> codes = stackalloc byte[ChunkValues];
        for (int group = 0; group < values.Length / GroupLength; group++)
        {
            ReadOnlySpan<byte> block = blocks.Slice(group * BytesPerBlock, BytesPerBlock);
            (float scale, int zero) = (ScaleOf(block), ZeroOf(block));
            for (int first = 0; first < GroupLength; first += ChunkValues)
            {
                int count = Math.Min(ChunkValues, GroupLength - first);
                BitFields.Unpack(block[(CodesOffset + (first / BitFields.Run * Bits))..], Bits, codes[..count]);
                Span<float> to = values.Slice((group * GroupLength) + first, count);
                if (level >= SimdLevel.Avx512) ToValues<Lanes512>(codes, zero, scale, to);
                else if (level >= SimdLevel.Avx2) ToValues<Lanes256>(codes, zero, scale, to);
                else if (level >= SimdLevel.Vector128) ToValues<Lanes128>(codes, zero, scale, to);
                else ToValues<Lanes1>(codes, zero, scale, to);
            }
        }
    }

    internal void EncodeRow(SimdLevel level, ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
    {
        CheckLengths(row.Length, blocks.Length);
        if (importance.Length != 0 && importance.Length != row.Length) throw new ArgumentException($"{importance.Length} weights for {row.Length} values", nameof(importance));
        Span<float> scales = stackalloc float[Search.Stride], zeros = stackalloc float[Search.Stride];
        Span<byte> codes = stackalloc byte[ChunkValues];
        int groupCount = row.Length / GroupLength;
        for (int batch = 0; batch < groupCount; batch += Search.Stride)
        {
            int count = Math.Min(Search.Stride, groupCount - batch);
            ReadOnlySpan<float> weights = importance.IsEmpty ? importance : importance.Slice(batch * GroupLength, count * GroupLength);
            FitGroups(level, row.Slice(batch * GroupLength, count * GroupLength), weights, effort, scales, zeros);
            for (int g = 0; g < count; g++)
            {
                Span<byte> block = blocks.Slice((batch + g) * BytesPerBlock, BytesPerBlock);
                WriteHeader(scales[g], (int)zeros[g], block);
                for (int first = 0; first < GroupLength; first += ChunkValues)
                {
                    int length = Math.Min(ChunkValues, GroupLength - first);
                    ReadOnlySpan<float> values = row.Slice(((batch + g) * GroupLength) + first, length);
                    if (level >= SimdLevel.Avx512) ToCodes<Lanes512>(values, zeros[g], scales[g], codes);
                    else if (level >= SimdLevel.Avx2) ToCodes<Lanes256>(values, zeros[g], scales[g], codes);
                    else if (level >= SimdLevel.Vector128) ToCodes<Lanes128>(values, zeros[g], scales[g], codes);
                    else ToCodes<Lanes1>(values, zeros[g], scales[g], codes);
                    BitFields.Pack(codes[..length], Bits, block[(CodesOffset + (first / BitFields.Run * Bits))..]);
                }
            }
        }
    }

    private static void ToValues<T>(ReadOnlySpan<byte> codes, int zero, float scale, Span<float> values) where T : unmanaged, ILanes<T>
    {
        T origin = T.Broadcast(zero), step = T.Broadcast(scale);
        for (int i = 0; i < values.Length; i += T.Width) T.Store((T.ToFloat(T.LoadBytes(in codes[i])) - origin) * step, ref values[i]);
    }

    private void ToCodes<T>(ReadOnlySpan<float> values, float zero, float scale, Span<byte> codes) where T : unmanaged, ILanes<T>
    {
        T origin = T.Broadcast(zero), step = T.Broadcast(scale);
        for (int i = 0; i < values.Length; i += T.Width)
        {
            T steps = LaneMath.Clamp(T.Load(in values[i]) / step, -zero, LargestCode - zero);
            T.StoreBytes(T.ToInt(LaneMath.RoundToEven(steps) + origin), ref codes[i]);
        }
    }

    /// <summary>Fits at most <see cref="Search.Stride"/> groups, back to back.</summary>
    private void FitGroups(SimdLevel level, ReadOnlySpan<float> groups, ReadOnlySpan<float> importance, Effort effort, Span<float> scales, Span<float> zeros)
    {
        int length = Search.Stride * GroupLength;
        float[] lanes = ArrayPool<float>.Shared.Rent(length), weights = ArrayPool<float>.Shared.Rent(length);
        Search.Transpose(groups, GroupLength, lanes.AsSpan(0, length));
        if (importance.IsEmpty) weights.AsSpan(0, length).Fill(1);
        else Search.Transpose(importance, GroupLength, weights.AsSpan(0, length));
        if (level >= SimdLevel.Avx512) FitLanes<Lanes512>(lanes, weights, groups.Length / GroupLength, !importance.IsEmpty, effort, scales, zeros);
        else if (level >= SimdLevel.Avx2) FitLanes<Lanes256>(lanes, weights, groups.Length / GroupLength, !importance.IsEmpty, effort, scales, zeros);
        else if (level >= SimdLevel.Vector128) FitLanes<Lanes128>(lanes, weights, groups.Length / GroupLength, !importance.IsEmpty, effort, scales, zeros);
        else FitLanes<Lanes1>(lanes, weights, groups.Length / GroupLength, !importance.IsEmpty, effort, scales, zeros);
        ArrayPool<float>.Shared.Return(lanes);
        ArrayPool<float>.Shared.Return(weights);
    }

    private void FitLanes<T>(float[] lanes, float[] weights, int groupCount, bool hasImportance, Effort effort, Span<float> scales, Span<float> zeros) where T : unmanaged, ILanes<T>
    {
        for (int g = 0; g < groupCount; g += T.Width) _search.Fit<T>(in lanes[g], in weights[g], GroupLength, hasImportance, effort, ref scales[g], ref zeros[g]);
    }

    private void WriteHeader(float scale, int zero, Span<byte> block)
    {
        ushort bits = HasHalfScales ? BitConverter.HalfToUInt16Bits((Half)scale) : BFloat16Rows.Narrow(scale);
        BinaryPrimitives.WriteUInt16LittleEndian(block, bits);
        if (!IsSymmetric) block[2] = (byte)zero;
    }

    private void CheckLengths(int valueCount, int byteCount)
    {
        (int blockCount, int rest) = Math.DivRem(valueCount, GroupLength);
        if (rest != 0 || (long)blockCount * BytesPerBlock != byteCount) throw new ArgumentException($"{valueCount} values of {Name} are not {byteCount} bytes");
    }
}
