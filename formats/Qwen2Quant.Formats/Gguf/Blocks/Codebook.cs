using System.Numerics;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>A fixed table of short rows, each written as one word of equally wide fields, the first element in the lowest.</summary>
internal sealed class Codebook
{
    private readonly float[] _rows;

    /// <param name="codes">One word for each row.</param>
    /// <param name="levels">The element that each field value stands for; 3 or 4 make fields of two bits, 8 of three.</param>
    public Codebook(ReadOnlySpan<ushort> codes, int rowLength, ReadOnlySpan<float> levels)
    {
        int fieldBits = levels.Length > 4 ? 3 : 2;
        RowLength = rowLength;
        _rows = new float[codes.Length * rowLength];
        for (int i = 0; i < _rows.Length; i++)
        {
            int field = codes[i / rowLength] >> (fieldBits * (i % rowLength));
            _rows[i] = levels[field & ((1 << fieldBits) - 1)];
        }
    }

    public int RowLength { get; }

    /// <summary>All rows, back to back.</summary>
    public ReadOnlySpan<float> Rows => _rows;

    /// <summary>Signs of eight values from seven stored bits: the eighth makes their number even (ggml's <c>ksigns_iq2xs</c>).</summary>
    public static int EvenSigns(int sevenBits)
    {
        int bits = sevenBits & 127;
        return bits | ((BitOperations.PopCount((uint)bits) & 1) << 7);
    }

    /// <summary>Values <c>step * row</c>, negative where the bit of <paramref name="signs"/> is set.</summary>
    public void Decode(int index, int signs, float step, Span<float> values)
    {
        ReadOnlySpan<float> row = _rows.AsSpan(index * RowLength, values.Length);
        for (int j = 0; j < row.Length; j++)
        {
            int sign = signs << (31 - j) & int.MinValue;
            values[j] = BitConverter.Int32BitsToSingle(BitConverter.SingleToInt32Bits(step * row[j]) ^ sign);
        }
    }

    /// <summary>Values <c>step * (row + delta)</c>.</summary>
    public void DecodeShifted(int index, float delta, float step, Span<float> values)
    {
        ReadOnlySpan<float> row = _rows.AsSpan(index * RowLength, values.Length);
        for (int j = 0; j < row.Length; j++) values[j] = step * (row[j] + delta);
    }
}
