using System.Buffers;
using System.Buffers.Binary;
using System.Collections.Concurrent;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Formats.Packed.Mlx;

/// <summary>
/// MLX's affine integers: value <c>scale * code + bias</c> in groups of a row, 2, 3, 4, 5, 6 or 8 bits; scales may be negative. In memory a block is one group: scale and
/// bias in their stored precision, and the codes as <see cref="BitFields"/> packs them. There is one object for each set of parameters, so that equal types are the same.
/// </summary>
public sealed class AffineGridType : ElementType, IBlockCodec
{
    internal const int CodesOffset = 4;

    private static readonly ConcurrentDictionary<(int, int, ElementType), AffineGridType> Known = new();

    private readonly AffineGridSearch _search;

    private AffineGridType(int bits, int groupLength, ElementType scaleType)
    {
        (Bits, GroupLength, ScaleType) = (bits, groupLength, scaleType);
        _search = new AffineGridSearch(LargestCode, HasHalves);
        Integers = new AffineGridIntegers(this);
    }

    public int Bits { get; }

    public int GroupLength { get; }

    /// <summary>Of scales and biases: F16 or BF16.</summary>
    public ElementType ScaleType { get; }

    public override string Name => $"MLX{Bits}G{GroupLength}{(HasHalves ? "" : "_BF16")}";
    public override int ValuesPerBlock => GroupLength;
    public override int BytesPerBlock => CodesOffset + (GroupLength / BitFields.Run * Bits);
    public override bool CanEncode => true;
    public override IntegerForm Integers { get; }
    public override float LargestMagnitude => HasHalves ? StoredHalf.Largest : float.MaxValue / 4;

    public GridShape Shape => new(GroupLength, GroupLength, 1, LargestCode + 1, 2);

    internal int LargestCode => (1 << Bits) - 1;

    private bool HasHalves => ReferenceEquals(ScaleType, PlainTypes.F16);

    /// <exception cref="ArgumentException">There is no such grid.</exception>
    public static AffineGridType Of(int bits, int groupLength, ElementType scaleType)
    {
        if (bits is not (2 or 3 or 4 or 5 or 6 or 8)) throw new ArgumentException($"{bits} bits", nameof(bits));
        if (groupLength is not (32 or 64 or 128)) throw new ArgumentException($"a group of {groupLength} values", nameof(groupLength));
        if (!ReferenceEquals(scaleType, PlainTypes.F16) && !ReferenceEquals(scaleType, PlainTypes.BF16)) throw new ArgumentException($"scales of {scaleType}", nameof(scaleType));
        return Known.GetOrAdd((bits, groupLength, scaleType), static key => new AffineGridType(key.Item1, key.Item2, key.Item3));
    }

    public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values) => Decode(Simd.Level, blocks, values);

    public override void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) => EncodeRow(Simd.Level, row, importance, effort, blocks);

    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<float> scales = stackalloc float[Search.Stride], biases = stackalloc float[Search.Stride];
        FitGroups(Simd.Level, block, importance, effort, scales, biases);
        (parameters[0], parameters[1]) = (scales[0], biases[0]);
    }

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => new(parameters[1], parameters[0], LargestCode + 1);

    public float Store(int parameter, float value)
    {
        float limited = Math.Clamp(value, -LargestMagnitude, LargestMagnitude);
        return HasHalves ? StoredHalf.Round(limited) : BitConverter.UInt32BitsToSingle((uint)BFloat16Rows.Narrow(limited) << 16);
    }

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        Write(parameters[0], block);
        Write(parameters[1], block[sizeof(ushort)..]);
        BitFields.Pack(codes, Bits, block[CodesOffset..]);
    }

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        (parameters[0], parameters[1]) = (ScaleOf(block), BiasOf(block));
        BitFields.Unpack(block[CodesOffset..], Bits, codes);
    }

    internal float ScaleOf(ReadOnlySpan<byte> block) => Read(block);

    internal float BiasOf(ReadOnlySpan<byte> block) => Read(block[sizeof(ushort)..]);

    internal void Decode(SimdLevel level, ReadOnlySpan<byte> blocks, Span<float> values)
    {
        CheckLengths(values.Length, blocks.Length);
        Span<byte> codes = stackalloc byte[GroupLength];
        for (int group = 0; group < values.Length / GroupLength; group++)
        {
            ReadOnlySpan<byte> block = blocks.Slice(group * BytesPerBlock, BytesPerBlock);
            BitFields.Unpack(block[CodesOffset..], Bits, codes);
            Span<float> to = values.Slice(group * GroupLength, GroupLength);
            if (level >= SimdLevel.Avx512) ToValues<Lanes512>(codes, ScaleOf(block), BiasOf(block), to);
            else if (level >= SimdLevel.Avx2) ToValues<Lanes256>(codes, ScaleOf(block), BiasOf(block), to);
            else if (level >= SimdLevel.Vector128) ToValues<Lanes128>(codes, ScaleOf(block), BiasOf(block), to);
            else ToValues<Lanes1>(codes, ScaleOf(block), BiasOf(block), to);
        }
    }

    internal void EncodeRow(SimdLevel level, ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
    {
        CheckLengths(row.Length, blocks.Length);
        if (importance.Length != 0 && importance.Length != row.Length) throw new ArgumentException($"{importance.Length} weights for {row.Length} values", nameof(importance));
        Span<float> scales = stackalloc float[Search.Stride], biases = stackalloc float[Search.Stride];
        Span<byte> codes = stackalloc byte[GroupLength];
        int groupCount = row.Length / GroupLength;
        for (int batch = 0; batch < groupCount; batch += Search.Stride)
        {
            int count = Math.Min(Search.Stride, groupCount - batch);
            ReadOnlySpan<float> weights = importance.IsEmpty ? importance : importance.Slice(batch * GroupLength, count * GroupLength);
            FitGroups(level, row.Slice(batch * GroupLength, count * GroupLength), weights, effort, scales, biases);
            for (int g = 0; g < count; g++)
            {
                Span<byte> block = blocks.Slice((batch + g) * BytesPerBlock, BytesPerBlock);
                ReadOnlySpan<float> values = row.Slice((batch + g) * GroupLength, GroupLength);
                Write(scales[g], block);
                Write(biases[g], block[sizeof(ushort)..]);
                // MLX chooses codes under its parameters before they are stored.
                (float scale, float bias) = effort == Effort.Reference ? Unrounded(values) : (scales[g], biases[g]);
                if (level >= SimdLevel.Avx512) ToCodes<Lanes512>(values, scale, bias, codes);
                else if (level >= SimdLevel.Avx2) ToCodes<Lanes256>(values, scale, bias, codes);
                else if (level >= SimdLevel.Vector128) ToCodes<Lanes128>(values, scale, bias, codes);
                else ToCodes<Lanes1>(values, scale, bias, codes);
                BitFields.Pack(codes, Bits, block[CodesOffset..]);
            }
        }
    }

    private static void ToValues<T>(ReadOnlySpan<byte> codes, float scale, float bias, Span<float> values) where T : unmanaged, ILanes<T>
    {
        T origin = T.Broadcast(bias), step = T.Broadcast(scale);
        for (int i = 0; i < values.Length; i += T.Width) T.Store((T.ToFloat(T.LoadBytes(in codes[i])) * step) + origin, ref values[i]);
    }

    private void ToCodes<T>(ReadOnlySpan<float> values, float scale, float bias, Span<byte> codes) where T : unmanaged, ILanes<T>
    {
        T origin = T.Broadcast(bias), step = T.Broadcast(scale == 0 ? AffineGridSearch.LeastScale : scale);
        for (int i = 0; i < values.Length; i += T.Width) T.StoreBytes(T.ToInt(_search.Code(T.Load(in values[i]), step, origin)), ref codes[i]);
    }

    private (float Scale, float Bias) Unrounded(ReadOnlySpan<float> values)
    {
        Lanes1 low = Lanes1.Broadcast(System.Numerics.Tensors.TensorPrimitives.Min(values)), high = Lanes1.Broadcast(System.Numerics.Tensors.TensorPrimitives.Max(values));
        _search.Mlx(low, high, out Lanes1 scale, out Lanes1 bias);
        (float s, float b) = (0, 0);
        Lanes1.Store(scale, ref s);
        Lanes1.Store(bias, ref b);
        return (s, b);
    }

    /// <summary>Fits at most <see cref="Search.Stride"/> groups, back to back.</summary>
    private void FitGroups(SimdLevel level, ReadOnlySpan<float> groups, ReadOnlySpan<float> importance, Effort effort, Span<float> scales, Span<float> biases)
    {
        int length = Search.Stride * GroupLength;
        float[] lanes = ArrayPool<float>.Shared.Rent(length), weights = ArrayPool<float>.Shared.Rent(length);
        Search.Transpose(groups, GroupLength, lanes.AsSpan(0, length));
        if (importance.IsEmpty) weights.AsSpan(0, length).Fill(1);
        else Search.Transpose(importance, GroupLength, weights.AsSpan(0, length));
        if (level >= SimdLevel.Avx512) FitLanes<Lanes512>(lanes, weights, groups.Length / GroupLength, effort, scales, biases);
        else if (level >= SimdLevel.Avx2) FitLanes<Lanes256>(lanes, weights, groups.Length / GroupLength, effort, scales, biases);
        else if (level >= SimdLevel.Vector128) FitLanes<Lanes128>(lanes, weights, groups.Length / GroupLength, effort, scales, biases);
        else FitLanes<Lanes1>(lanes, weights, groups.Length / GroupLength, effort, scales, biases);
        ArrayPool<float>.Shared.Return(lanes);
        ArrayPool<float>.Shared.Return(weights);
    }

    private void FitLanes<T>(float[] lanes, float[] weights, int groupCount, Effort effort, Span<float> scales, Span<float> biases) where T : unmanaged, ILanes<T>
    {
        for (int g = 0; g < groupCount; g += T.Width) _search.Fit<T>(in lanes[g], in weights[g], GroupLength, effort, ref scales[g], ref biases[g]);
    }

    private float Read(ReadOnlySpan<byte> bytes)
    {
        ushort bits = BinaryPrimitives.ReadUInt16LittleEndian(bytes);
        return HasHalves ? (float)BitConverter.UInt16BitsToHalf(bits) : BitConverter.UInt32BitsToSingle((uint)bits << 16);
    }

    private void Write(float value, Span<byte> bytes) => BinaryPrimitives.WriteUInt16LittleEndian(bytes, HasHalves ? BitConverter.HalfToUInt16Bits((Half)value) : BFloat16Rows.Narrow(value));

    private void CheckLengths(int valueCount, int byteCount)
    {
        (int blockCount, int rest) = Math.DivRem(valueCount, GroupLength);
        if (rest != 0 || (long)blockCount * BytesPerBlock != byteCount) throw new ArgumentException($"{valueCount} values of {Name} are not {byteCount} bytes");
    }
}
