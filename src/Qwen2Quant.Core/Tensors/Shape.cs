using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Core.Tensors;

/// <summary>
/// Dimensions of a tensor, outermost first (Hugging Face order; GGUF stores the reverse).
/// A row is the innermost dimension: contiguous, one output channel of a linear layer.
/// </summary>
public sealed class Shape : IEquatable<Shape>
{
    private readonly long[] _dimensions;

    /// <exception cref="ArgumentException">A dimension is negative or the product exceeds <see cref="long.MaxValue"/>; readers check first with <see cref="TryCountValues"/>.</exception>
    public Shape(params ReadOnlySpan<long> dimensions)
    {
        if (!TryCountValues(dimensions, out long count)) throw new ArgumentException("dimensions are negative or overflow", nameof(dimensions));
        _dimensions = dimensions.ToArray();
        ValueCount = count;
    }

    public ReadOnlySpan<long> Dimensions => _dimensions;
    public int Rank => _dimensions.Length;
    public long this[int index] => _dimensions[index];

    /// <summary>Values of one row; 1 for a scalar.</summary>
    public long RowLength => Rank == 0 ? 1 : _dimensions[^1];

    public long ValueCount { get; }

    /// <summary>Rows of all outer dimensions together; 0 when the row itself is empty.</summary>
    public long RowCount => RowLength == 0 ? 0 : ValueCount / RowLength;

    /// <summary>The product of dimensions, or false when one is negative or the product overflows, whatever the order of zeros.</summary>
    public static bool TryCountValues(ReadOnlySpan<long> dimensions, out long count)
    {
        count = 1;
        bool zero = false;
        foreach (long dimension in dimensions)
        {
            if (dimension < 0) return false;
            if (dimension == 0) zero = true;
            else if (!CheckedMath.TryMultiply(count, dimension, out count)) return false;
        }

        if (zero) count = 0;
        return true;
    }

    public bool Equals(Shape? other) => other is not null && Dimensions.SequenceEqual(other.Dimensions);

    public override bool Equals(object? obj) => Equals(obj as Shape);

    public override int GetHashCode()
    {
        HashCode hash = default;
        foreach (long dimension in _dimensions) hash.Add(dimension);
        return hash.ToHashCode();
    }

    public override string ToString() => $"[{string.Join(", ", _dimensions)}]";
}
