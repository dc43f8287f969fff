using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>What tells integer grids apart.</summary>
/// <param name="Bits">2, 3, 4 or 8.</param>
/// <param name="GroupLength">Values of a row that share a scale and a zero, a multiple of 32; the row's length for whole rows.</param>
/// <param name="IsSymmetric">The zero is the middle code; it is stored all the same.</param>
/// <param name="Scale">F16, BF16 or F32.</param>
/// <param name="LeastZero">1 for layouts that cannot hold a zero of 0 (GPTQ v1).</param>
public sealed record IntegerGrid(int Bits, int GroupLength, bool IsSymmetric, ElementType Scale, int LeastZero = 0)
{
    public int GreatestCode => (1 << Bits) - 1;

    public int MiddleZero => 1 << (Bits - 1);
}

/// <summary>
/// Integers of a few bits in groups under a scale and an integer zero, value <c>scale * (code - zero)</c>: the one grid of GPTQ, AWQ, compressed-tensors and MLX, whose
/// layouts differ. Here a group of a row lies as its scale, its zero (a byte), and the codes as one stream of bits, the lowest first.
/// </summary>
public sealed partial class IntegerGroup : ElementType, IBlockCodec
{
    private static readonly ConcurrentDictionary<IntegerGrid, IntegerGroup> Known = new();

    private readonly int _scaleBytes;

    private IntegerGroup(IntegerGrid grid)
    {
        if (grid.Bits is not (2 or 3 or 4 or 8) || grid.GroupLength < 32 || grid.GroupLength % 32 != 0) throw new ArgumentException($"no integer grid of {grid.Bits} bits in groups of {grid.GroupLength}", nameof(grid));
        Grid = grid;
        _scaleBytes = grid.Scale.BytesPerBlock;
        Name = string.Create(CultureInfo.InvariantCulture, $"W{grid.Bits}G{grid.GroupLength}{(grid.IsSymmetric ? "" : "-asym")}");
    }

    public IntegerGrid Grid { get; }
    public override string Name { get; }
    public override int ValuesPerBlock => Grid.GroupLength;
    public override int BytesPerBlock => CodeOffset + CodeBytes;
    public override bool CanEncode => true;

    /// <summary>The scale, about the largest value over half the codes, must be a half.</summary>
    public override float LargestMagnitude => 65504f * Grid.MiddleZero / 2;

    public GridShape Shape => new(Grid.GroupLength, Grid.GroupLength, 1, Grid.GreatestCode + 1, 2);

    internal int CodeOffset => _scaleBytes + 1;

    internal int CodeBytes => Grid.GroupLength / 8 * Grid.Bits;

    /// <summary>The type of a grid; equal grids have one.</summary>
    public static IntegerGroup Of(IntegerGrid grid) => Known.GetOrAdd(grid, static key => new IntegerGroup(key));

    public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        int count = values.Length / Grid.GroupLength;
        if (values.Length % Grid.GroupLength != 0 || (long)count * BytesPerBlock != blocks.Length) throw new ArgumentException($"{values.Length} values of {Name} are not {blocks.Length} bytes");
        Span<byte> codes = stackalloc byte[32];
        for (int n = 0; n < count; n++)
        {
            ReadOnlySpan<byte> block = blocks.Slice(n * BytesPerBlock, BytesPerBlock);
            float scale = ScaleOf(block);
            int zero = block[_scaleBytes];
            Span<float> group = values.Slice(n * Grid.GroupLength, Grid.GroupLength);
            for (int i = 0; i < group.Length; i += 32)
            {
                UnpackCodes(block.Slice(CodeOffset + (i / 8 * Grid.Bits), 4 * Grid.Bits), codes);
                for (int j = 0; j < 32; j++) group[i + j] = scale * (codes[j] - zero);
            }
        }
    }

    public override void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
    {
        if (row.Length % Grid.GroupLength != 0 || ByteCount(row.Length) != blocks.Length) throw new ArgumentException($"{row.Length} values of {Name} are not {blocks.Length} bytes");
        byte[] codes = new byte[Grid.GroupLength];
        Span<float> parameters = stackalloc float[2];
        for (int n = 0; n < row.Length / Grid.GroupLength; n++)
        {
            ReadOnlySpan<float> group = row.Slice(n * Grid.GroupLength, Grid.GroupLength);
            Fit(group, importance.IsEmpty ? importance : importance.Slice(n * Grid.GroupLength, Grid.GroupLength), effort, parameters);
            Levels levels = GetLevels(parameters, 0);
            for (int i = 0; i < group.Length; i++) codes[i] = (byte)levels.Nearest(group[i]);
            Pack(codes, parameters, blocks.Slice(n * BytesPerBlock, BytesPerBlock));
        }
    }

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => Levels.Scaled(parameters[0], Grid.GreatestCode + 1, (int)parameters[1]);

    public float Store(int parameter, float value) =>
        parameter == 0 ? Rounded(MathF.Max(value, 0)) : Grid.IsSymmetric ? float.NaN : Math.Clamp(MathF.Round(value), Grid.LeastZero, Grid.GreatestCode);

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        Grid.Scale.EncodeRow(parameters[..1], [], Effort.Fast, block[.._scaleBytes]);
        block[_scaleBytes] = (byte)parameters[1];
        block = block[CodeOffset..];
        for (int i = 0; i < codes.Length; i += 8)
        {
            ulong bits = 0;
            for (int j = 7; j >= 0; j--) bits = (bits << Grid.Bits) | codes[i + j];
            for (int b = 0; b < Grid.Bits; b++) block[(i / 8 * Grid.Bits) + b] = (byte)(bits >> (8 * b));
        }
    }

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        parameters[0] = ScaleOf(block);
        parameters[1] = block[_scaleBytes];
        for (int i = 0; i < codes.Length; i += 32) UnpackCodes(block.Slice(CodeOffset + (i / 8 * Grid.Bits), 4 * Grid.Bits), codes.Slice(i, 32));
    }

    private float ScaleOf(ReadOnlySpan<byte> block) =>
        ReferenceEquals(Grid.Scale, PlainTypes.F16) ? (float)BinaryPrimitives.ReadHalfLittleEndian(block)
        : ReferenceEquals(Grid.Scale, PlainTypes.BF16) ? BitConverter.UInt32BitsToSingle((uint)BinaryPrimitives.ReadUInt16LittleEndian(block) << 16)
        : BinaryPrimitives.ReadSingleLittleEndian(block);

    private float Rounded(float scale)
    {
        Span<byte> bytes = stackalloc byte[4];
        Grid.Scale.EncodeRow([MathF.Min(scale, Grid.Scale.LargestMagnitude)], [], Effort.Fast, bytes[.._scaleBytes]);
        return ScaleOf(bytes);
    }

    /// <summary>32 codes of one stream of bits.</summary>
    private void UnpackCodes(ReadOnlySpan<byte> stream, Span<byte> codes)
    {
        if (Grid.Bits == 8)
        {
            stream.CopyTo(codes);
            return;
        }

        byte mask = (byte)Grid.GreatestCode;
        for (int i = 0; i < 32; i += 8)
        {
            uint bits = Grid.Bits switch
            {
                2 => BinaryPrimitives.ReadUInt16LittleEndian(stream[(i / 4)..]),
                3 => stream[i / 8 * 3] | ((uint)stream[(i / 8 * 3) + 1] << 8) | ((uint)stream[(i / 8 * 3) + 2] << 16),
                _ => BinaryPrimitives.ReadUInt32LittleEndian(stream[(i / 2)..]),
            };
            for (int j = 0; j < 8; j++) codes[i + j] = (byte)((bits >> (j * Grid.Bits)) & mask);
        }
    }
}
