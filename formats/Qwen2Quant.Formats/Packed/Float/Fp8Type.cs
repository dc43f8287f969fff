using System.Collections.Concurrent;
using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Float;

/// <summary>
/// E4M3 values in groups of a row under a scale of 16 or 32 bits: value <c>scale * code</c>. In memory a block is one group, the scale and a byte for each value.
/// There is one object for each set of parameters, so that equal types are the same.
/// </summary>
public sealed class Fp8Type : ElementType, IBlockCodec
{
    private static readonly ConcurrentDictionary<(int, ElementType), Fp8Type> Known = new();

    private Fp8Type(int groupLength, ElementType scaleType) => (GroupLength, ScaleType) = (groupLength, scaleType);

    /// <summary>Values that share a scale, up to a whole row.</summary>
    public int GroupLength { get; }

    /// <summary>F16, BF16 or F32.</summary>
    public ElementType ScaleType { get; }

    public override string Name => $"FP8G{GroupLength}{(ReferenceEquals(ScaleType, PlainTypes.F16) ? "" : $"_{ScaleType.Name}")}";
    public override int ValuesPerBlock => GroupLength;
    public override int BytesPerBlock => ScaleType.BytesPerBlock + GroupLength;
    public override bool CanEncode => true;
    public override float LargestMagnitude => ReferenceEquals(ScaleType, PlainTypes.F16) ? 65504f * 64 : float.MaxValue / 2;

    public GridShape Shape => new(GroupLength, GroupLength, 1, Fp8Codes.Table.Length, 1);

    /// <exception cref="ArgumentException">There is no such type.</exception>
    public static Fp8Type Of(int groupLength, ElementType scaleType)
    {
        if (groupLength <= 0) throw new ArgumentException($"a group of {groupLength} values", nameof(groupLength));
        if (!ReferenceEquals(scaleType, PlainTypes.F16) && !ReferenceEquals(scaleType, PlainTypes.BF16) && !ReferenceEquals(scaleType, PlainTypes.F32)) throw new ArgumentException($"scales of {scaleType}", nameof(scaleType));
        return Known.GetOrAdd((groupLength, scaleType), static key => new Fp8Type(key.Item1, key.Item2));
    }

    public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        CheckLengths(values.Length, blocks.Length);
        for (int group = 0; group < values.Length / GroupLength; group++)
        {
            ReadOnlySpan<byte> block = blocks.Slice(group * BytesPerBlock, BytesPerBlock), codes = block[ScaleType.BytesPerBlock..];
            float scale = ScaleOf(block);
            Span<float> to = values.Slice(group * GroupLength, GroupLength);
            for (int i = 0; i < to.Length; i++) to[i] = scale * Fp8Codes.Values[codes[i]];
        }
    }

    /// <summary>The largest magnitude becomes the largest code; what is to gain by other scales is little, as steps grow with values. Importance does not matter.</summary>
    public override void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
    {
        CheckLengths(row.Length, blocks.Length);
        Span<float> parameters = stackalloc float[1];
        for (int group = 0; group < row.Length / GroupLength; group++)
        {
            ReadOnlySpan<float> values = row.Slice(group * GroupLength, GroupLength);
            Span<byte> block = blocks.Slice(group * BytesPerBlock, BytesPerBlock), codes = block[ScaleType.BytesPerBlock..];
            Fit(values, importance, effort, parameters);
            WriteScale(parameters[0], block);
            float inverse = 1 / parameters[0];
            for (int i = 0; i < values.Length; i++) codes[i] = Float8.ToE4M3(values[i] * inverse);
        }
    }

    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        float largest = MathF.Abs(TensorPrimitives.MaxMagnitude(block));
        parameters[0] = Store(0, largest == 0 ? 1 : largest / Float8.LargestE4M3);
    }

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => new(-0f, parameters[0], Fp8Codes.Table.Length, 0, Fp8Codes.Table);

    /// <summary>Never zero: readers may divide by it.</summary>
    public float Store(int parameter, float value)
    {
        const float least = 1f / (1 << 24);
        Span<byte> stored = stackalloc byte[sizeof(float)];
        Span<float> rounded = [Math.Max(value, least)];
        if (ReferenceEquals(ScaleType, PlainTypes.F32)) return rounded[0];
        ScaleType.EncodeRow(rounded, default, Effort.Reference, stored[..ScaleType.BytesPerBlock]);
        ScaleType.Decode(stored[..ScaleType.BytesPerBlock], rounded);
        return rounded[0];
    }

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        WriteScale(parameters[0], block);
        Span<byte> to = block[ScaleType.BytesPerBlock..];
        for (int i = 0; i < codes.Length; i++) to[i] = Fp8Codes.Sorted[codes[i]];
    }

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        parameters[0] = ScaleOf(block);
        ReadOnlySpan<byte> from = block[ScaleType.BytesPerBlock..];
        for (int i = 0; i < codes.Length; i++) codes[i] = Fp8Codes.Places[from[i]];
    }

    private float ScaleOf(ReadOnlySpan<byte> block)
    {
        Span<float> scale = stackalloc float[1];
        ScaleType.Decode(block[..ScaleType.BytesPerBlock], scale);
        return scale[0];
    }

    private void WriteScale(float scale, Span<byte> block)
    {
        if (ReferenceEquals(ScaleType, PlainTypes.F32)) MemoryMarshal.Write(block, scale);
        else ScaleType.EncodeRow([scale], default, Effort.Reference, block[..ScaleType.BytesPerBlock]);
    }

    private void CheckLengths(int valueCount, int byteCount)
    {
        (int blockCount, int rest) = Math.DivRem(valueCount, GroupLength);
        if (rest != 0 || (long)blockCount * BytesPerBlock != byteCount) throw new ArgumentException($"{valueCount} values of {Name} are not {byteCount} bytes");
    }
}
