using System.Collections.Concurrent;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
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

    private readonly AffineGrid _grid;

    private AffineGridType(int bits, int groupLength, ElementType scaleType)
    {
        ScaleType = scaleType;
        _grid = new AffineGrid(bits, groupLength, new StoredScale(scaleType));
        Integers = new GroupIntegers<AffineGrid>(_grid);
    }

    public int Bits => _grid.Bits;

    public int GroupLength => _grid.GroupLength;

    /// <summary>Of scales and biases: F16 or BF16.</summary>
    public ElementType ScaleType { get; }

    public override string Name => $"MLX{Bits}G{GroupLength}{(_grid.Stored.IsHalf ? "" : "_BF16")}";
    public override int ValuesPerBlock => GroupLength;
    public override int BytesPerBlock => GroupLanes.BlockBytes(in _grid);
    public override bool CanEncode => true;
    public override IntegerForm Integers { get; }
    public override float LargestMagnitude => _grid.Stored.IsHalf ? StoredHalf.Largest : float.MaxValue / 4;

    public GridShape Shape => new(GroupLength, GroupLength, 1, _grid.LargestCode + 1, 2);

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

    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters) =>
        (parameters[0], parameters[1]) = GroupLanes.Fit(Simd.Level, in _grid, block, importance, effort);

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => new(parameters[1], parameters[0], _grid.LargestCode + 1);

    public float Store(int parameter, float value) => _grid.Stored.Round(Math.Clamp(value, -LargestMagnitude, LargestMagnitude));

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        _grid.Write(parameters[0], parameters[1], block);
        BitFields.Pack(codes, Bits, block[CodesOffset..]);
    }

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        (parameters[0], parameters[1]) = _grid.Read(block);
        BitFields.Unpack(block[CodesOffset..], Bits, codes);
    }

    internal void Decode(SimdLevel level, ReadOnlySpan<byte> blocks, Span<float> values)
    {
        CheckLengths(values.Length, blocks.Length);
        GroupLanes.Decode(level, in _grid, blocks, values);
    }

    internal void EncodeRow(SimdLevel level, ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
    {
        CheckLengths(row.Length, blocks.Length, importance);
        GroupLanes.EncodeRow(level, in _grid, row, importance, effort, blocks);
    }
}
