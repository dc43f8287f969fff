using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>A source in which rows and columns of some tensors are multiplied: those are F32 here, computed at each reading. It does not close the originals. Tensors are added between readings.</summary>
internal sealed class RewrittenTensors(ITensorSource originals) : ITensorSource
{
    private readonly Dictionary<string, Factors> _byName = new(StringComparer.Ordinal);

    public IReadOnlyList<TensorEntry> Tensors => [.. originals.Tensors.Select(entry => Find(entry.Name)!)];

    /// <summary>True when nothing is rewritten.</summary>
    public bool IsEmpty => _byName.Count == 0;

    /// <summary>Multiplies the rows of a matrix, or the values of a vector.</summary>
    public void MultiplyRows(string name, ReadOnlySpan<float> factors)
    {
        Factors known = Of(name);
        // A vector is one row.
        if (known.Original.Shape.Rank == 1) known.Columns = Product(known.Columns, factors);
        else known.Rows = Product(known.Rows, factors);
    }

    public void MultiplyColumns(string name, ReadOnlySpan<float> factors)
    {
        Factors known = Of(name);
        known.Columns = Product(known.Columns, factors);
    }

    public TensorEntry? Find(string name) => _byName.TryGetValue(name, out Factors? known) ? known.Entry : originals.Find(name);

    public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination)
    {
        if (!_byName.TryGetValue(entry.Name, out Factors? known) || !ReferenceEquals(entry, known.Entry))
        {
            originals.ReadRaw(entry, byteOffset, destination);
            return;
        }

        int rowLength = checked((int)entry.Shape.RowLength);
        long first = byteOffset / sizeof(float), end = first + (destination.Length / sizeof(float));
        if (byteOffset % sizeof(float) != 0 || destination.Length % sizeof(float) != 0) throw new ArgumentException("floats are read whole", nameof(byteOffset));
        Span<float> target = MemoryMarshal.Cast<byte, float>(destination);
        int firstRow = (int)(first / rowLength), rowCount = (int)((end + rowLength - 1) / rowLength) - firstRow;
        bool isWhole = first % rowLength == 0 && end % rowLength == 0;
        Span<float> rows = isWhole ? target : new float[(long)rowCount * rowLength];
        originals.ReadRows(known.Original, firstRow, rowCount, rows);
        for (int row = 0; row < rowCount; row++)
        {
            Span<float> values = rows.Slice(row * rowLength, rowLength);
            if (known.Columns is not null) TensorPrimitives.Multiply(values, known.Columns, values);
            if (known.Rows is not null) TensorPrimitives.Multiply(values, known.Rows[firstRow + row], values);
        }

        if (!isWhole) rows.Slice((int)(first - ((long)firstRow * rowLength)), target.Length).CopyTo(target);
    }

    public void Dispose()
    {
    }

    private static float[] Product(float[]? known, ReadOnlySpan<float> factors)
    {
        float[] product = factors.ToArray();
        if (known is not null) TensorPrimitives.Multiply(product, known, product);
        return product;
    }

    private Factors Of(string name)
    {
        if (_byName.TryGetValue(name, out Factors? known)) return known;
        TensorEntry original = originals.Find(name)!;
        _byName.Add(name, known = new Factors(original, new TensorEntry(name, PlainTypes.F32, original.Shape, 0)));
        return known;
    }

    private sealed class Factors(TensorEntry original, TensorEntry entry)
    {
        public TensorEntry Original { get; } = original;

        public TensorEntry Entry { get; } = entry;

        public float[]? Rows { get; set; }

        public float[]? Columns { get; set; }
    }
}
