using System.Collections.Concurrent;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
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
    private static readonly ConcurrentDictionary<(int, int, bool, ElementType, int), IntegerGridType> Known = new();

    private readonly IntegerGrid _grid;

    private IntegerGridType(int bits, int groupLength, bool isSymmetric, ElementType scaleType, int leastZero)
    {
        (IsSymmetric, ScaleType, LeastZero) = (isSymmetric, scaleType, leastZero);
        _grid = new IntegerGrid(bits, groupLength, isSymmetric, leastZero, new StoredScale(scaleType));
        Integers = new GroupIntegers<IntegerGrid>(_grid);
    }

    public int Bits => _grid.Bits;

    /// <summary>Values that share a scale and a zero; a multiple of 32, up to a whole row.</summary>
    public int GroupLength => _grid.GroupLength;

    /// <summary>True when every zero is the middle code, 2^(bits - 1), and is not stored.</summary>
    public bool IsSymmetric { get; }

    /// <summary>F16 or BF16.</summary>
    public ElementType ScaleType { get; }

    /// <summary>The least zero that is fitted: 1 for layouts that store the zero less one. What is read may have any.</summary>
    public int LeastZero { get; }

    public override string Name => $"W{Bits}G{GroupLength}{(IsSymmetric ? "" : "_ASYM")}{(_grid.Stored.IsHalf ? "" : "_BF16")}";
    public override int ValuesPerBlock => GroupLength;
    public override int BytesPerBlock => GroupLanes.BlockBytes(in _grid);
    public override bool CanEncode => true;
    public override IntegerForm Integers { get; }

    /// <summary>A scale of one code less than half of them still holds the extreme.</summary>
    public override float LargestMagnitude => _grid.Stored.IsHalf ? StoredHalf.Largest * Math.Max(1, MiddleCode - 1) / 2 : float.MaxValue / 4;

    public GridShape Shape => new(GroupLength, GroupLength, 1, LargestCode + 1, IsSymmetric ? 1 : 2);

    /// <summary>First byte of the codes in a block.</summary>
    internal int CodesOffset => _grid.CodesOffset;

    internal int LargestCode => _grid.LargestCode;

    internal int MiddleCode => _grid.MiddleCode;

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
        (parameters[0], float zero) = GroupLanes.Fit(Simd.Level, in _grid, block, importance, effort);
        if (!IsSymmetric) parameters[1] = zero;
    }

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => Levels.Scaled(parameters[0], LargestCode + 1, IsSymmetric ? MiddleCode : (int)parameters[1]);

    public float Store(int parameter, float value) => parameter == 1 ? Math.Clamp(MathF.Round(value), LeastZero, LargestCode) : _grid.Stored.Round(Math.Clamp(value, 0, LargestMagnitude));

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        _grid.Write(parameters[0], IsSymmetric ? MiddleCode : parameters[1], block);
        BitFields.Pack(codes, Bits, block[CodesOffset..]);
    }

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        (parameters[0], float zero) = _grid.Read(block);
        if (!IsSymmetric) parameters[1] = zero;
        BitFields.Unpack(block[CodesOffset..], Bits, codes);
    }

    internal int ZeroOf(ReadOnlySpan<byte> block) => _grid.ZeroOf(block);

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
