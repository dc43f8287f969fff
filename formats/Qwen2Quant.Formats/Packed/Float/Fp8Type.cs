using System.Collections.Concurrent;
using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Float;

/// <summary>
/// E4M3 values under scales of runs of a row, or of tiles of rows and columns: value <c>scale * code</c>. In memory a block is one run, the scale and a byte for each value;
/// the rows of a tile repeat its scale. There is one object for each set of parameters, so that equal types are the same.
/// </summary>
public sealed class Fp8Type : ElementType, IBlockCodec
{
    internal const float LeastScale = 1f / (1 << 24);

    private static readonly ConcurrentDictionary<(int, ElementType, int), Fp8Type> Known = new();

    private readonly StoredScale _stored;

    private Fp8Type(int groupLength, ElementType scaleType, int rowsPerScale) => (GroupLength, ScaleType, RowsPerScale, _stored) = (groupLength, scaleType, rowsPerScale, new StoredScale(scaleType));

    /// <summary>Values of a row that share a scale, up to the whole row.</summary>
    public int GroupLength { get; }

    /// <summary>F16, BF16 or F32; U8 for powers of two, an exponent with 127 added (E8M0).</summary>
    public ElementType ScaleType { get; }

    /// <summary>Rows that share their scales: the height of a tile.</summary>
    public int RowsPerScale { get; }

    public override string Name
    {
        get
        {
            string shape = RowsPerScale == 1 ? string.Create(CultureInfo.InvariantCulture, $"FP8G{GroupLength}") : string.Create(CultureInfo.InvariantCulture, $"FP8B{RowsPerScale}x{GroupLength}");
            return IsPowers ? "MX" + shape : _stored.IsHalf ? shape : $"{shape}_{ScaleType.Name}";
        }
    }

    public override int ValuesPerBlock => GroupLength;
    public override int BytesPerBlock => ScaleType.BytesPerBlock + GroupLength;
    public override int RowsPerBlock => RowsPerScale;
    public override bool CanEncode => true;

    /// <summary>Twice the least scale is still finite.</summary>
    public override float LargestMagnitude => _stored.IsHalf ? 65504f * 128 : float.MaxValue / 4;

    public GridShape Shape => new(GroupLength, GroupLength, 1, Float8.LevelsE4M3.Length, 1);

    private bool IsPowers => ReferenceEquals(ScaleType, PlainTypes.U8);

    /// <exception cref="ArgumentException">There is no such type.</exception>
    public static Fp8Type Of(int groupLength, ElementType scaleType, int rowsPerScale = 1)
    {
        if (groupLength <= 0) throw new ArgumentException($"a group of {groupLength} values", nameof(groupLength));
        if (rowsPerScale <= 0) throw new ArgumentException($"{rowsPerScale} rows", nameof(rowsPerScale));
        if (Array.IndexOf([PlainTypes.F16, PlainTypes.BF16, PlainTypes.F32, PlainTypes.U8], scaleType) < 0) throw new ArgumentException($"scales of {scaleType}", nameof(scaleType));
        return Known.GetOrAdd((groupLength, scaleType, rowsPerScale), static key => new Fp8Type(key.Item1, key.Item2, key.Item3));
    }

    public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values) => Decode(Simd.Level, blocks, values);

    /// <summary>One row, which has its tiles to itself.</summary>
    public override void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) => EncodeRows(Simd.Level, row, row.Length, importance, effort, blocks);

    public override void EncodeRows(ReadOnlySpan<float> rows, int rowLength, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) => EncodeRows(Simd.Level, rows, rowLength, importance, effort, blocks);

    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters) => parameters[0] = Fit(Simd.Level, block, block.Length, 0, importance, effort);

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => new(-0f, parameters[0], Float8.LevelsE4M3.Length, 0, Float8.LevelsE4M3);

    /// <summary>Never zero: readers may divide by it. The scales of tiles, which other rows have too, and powers of two are not changed alone.</summary>
    public float Store(int parameter, float value) => RowsPerScale > 1 || IsPowers ? float.NaN : Stored(value);

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        WriteScale(parameters[0], block);
        Span<byte> to = block[ScaleType.BytesPerBlock..];
        for (int i = 0; i < codes.Length; i++) to[i] = Float8.CodeAt(codes[i]);
    }

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        parameters[0] = ScaleOf(block);
        ReadOnlySpan<byte> from = block[ScaleType.BytesPerBlock..];
        for (int i = 0; i < codes.Length; i++) codes[i] = (byte)Float8.PlaceOf(from[i]);
    }

    internal void Decode(SimdLevel level, ReadOnlySpan<byte> blocks, Span<float> values)
    {
        CheckLengths(values.Length, blocks.Length);
        for (int group = 0; group < values.Length / GroupLength; group++)
        {
            ReadOnlySpan<byte> block = blocks.Slice(group * BytesPerBlock, BytesPerBlock);
            Fp8Rows.Decode(level, block[ScaleType.BytesPerBlock..], ScaleOf(block), values.Slice(group * GroupLength, GroupLength));
        }
    }

    internal void EncodeRows(SimdLevel level, ReadOnlySpan<float> rows, int rowLength, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
    {
        CheckLengths(rows.Length, blocks.Length);
        if (rowLength % GroupLength != 0 || rows.Length % rowLength != 0) throw new ArgumentException($"{rows.Length} values in rows of {rowLength} of {Name}", nameof(rows));
        if (importance.Length != 0 && importance.Length != rowLength) throw new ArgumentException($"{importance.Length} weights for rows of {rowLength}", nameof(importance));
        int rowCount = rows.Length / rowLength, rowBytes = rowLength / GroupLength * BytesPerBlock;
        for (int first = 0; first < rowCount; first += RowsPerScale)
        {
            ReadOnlySpan<float> tall = rows.Slice(first * rowLength, Math.Min(RowsPerScale, rowCount - first) * rowLength);
            for (int column = 0; column < rowLength; column += GroupLength)
            {
                float scale = Fit(level, tall, rowLength, column, importance.IsEmpty ? importance : importance.Slice(column, GroupLength), effort);
                for (int row = 0; row < tall.Length / rowLength; row++)
                {
                    Span<byte> block = blocks.Slice(((first + row) * rowBytes) + (column / GroupLength * BytesPerBlock), BytesPerBlock);
                    WriteScale(scale, block);
                    Fp8Rows.Encode(level, tall.Slice((row * rowLength) + column, GroupLength), scale, block[ScaleType.BytesPerBlock..]);
                }
            }
        }
    }

    /// <summary>
    /// The stored scale of least weighted squared error among that of the largest magnitude and some up to its double: beyond lie the same steps, less often used. Where the
    /// largest may weigh little also some below, which cut it off.
    /// </summary>
    private float Fit(SimdLevel level, ReadOnlySpan<float> rows, int rowLength, int column, ReadOnlySpan<float> importance, Effort effort)
    {
        int rowCount = rows.Length / rowLength;
        float peak = 0;
        for (int row = 0; row < rowCount; row++) peak = Math.Max(peak, FiniteCheck.LargestMagnitude(rows.Slice((row * rowLength) + column, GroupLength)));
        float kept = Stored(peak == 0 ? 1 : peak / Float8.LargestE4M3);
        if (peak == 0 || effort == Effort.Reference) return kept;
        (int below, int above) = IsPowers ? (1, 1) : effort switch { Effort.Fast => (0, 4), Effort.Normal => (0, 12), _ => (12, 48) };
        if (!importance.IsEmpty) below = Math.Max(below, above / 2);
        double best = double.PositiveInfinity;
        float first = kept;
        for (int trial = 0; trial <= above + below; trial++)
        {
            float scale = Stored(first * (IsPowers ? trial switch { 0 => 1, 1 => 2, _ => 0.5f } : trial <= above ? MathF.Pow(2, (float)trial / (above + 1)) : MathF.Pow(2, -(float)(trial - above) / (above + 1))));
            double error = 0;
            for (int row = 0; row < rowCount && error < best; row++) error += (double)Fp8Rows.Error(level, rows.Slice((row * rowLength) + column, GroupLength), importance, scale) * scale * scale;
            if (error < best) (best, kept) = (error, scale);
        }

        return kept;
    }

    /// <summary>The nearest scale that can be stored; of powers of two the least that is not smaller.</summary>
    private float Stored(float value)
    {
        if (IsPowers)
        {
            int bits = BitConverter.SingleToInt32Bits(Math.Clamp(value, 1.17549435e-38f, 1.7014118e38f));
            return BitConverter.Int32BitsToSingle((bits + 0x7fffff) & 0x7f800000);
        }

        return _stored.Round(Math.Max(value, LeastScale));
    }

    private float ScaleOf(ReadOnlySpan<byte> block)
    {
        // 2^-127 is denormal, and 255 is NaN.
        if (IsPowers) return block[0] switch { 0 => 5.877472e-39f, 255 => float.NaN, byte exponent => BitConverter.Int32BitsToSingle(exponent << 23) };
        return _stored.Read(block);
    }

    private void WriteScale(float scale, Span<byte> block)
    {
        if (IsPowers) block[0] = (byte)(float.IsNaN(scale) ? 255 : BitConverter.SingleToUInt32Bits(scale) >> 23);
        else _stored.Write(scale, block);
    }
}
