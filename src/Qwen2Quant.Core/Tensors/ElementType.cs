using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Core.Tensors;

/// <summary>
/// What a tensor's bytes mean: a descriptor, not an enumeration, so that a new type is its own file and one line of a catalogue.
/// Values lie in rows; a row is whole blocks back to back.
/// </summary>
public abstract class ElementType
{
    /// <summary>ggml's spelling where ggml has the type (<c>Q4_K</c>, <c>BF16</c>), else the format's own.</summary>
    public abstract string Name { get; }

    public abstract int ValuesPerBlock { get; }
    public abstract int BytesPerBlock { get; }

    /// <summary>Rows that share parameters, which their blocks repeat: the height of a tile. They are encoded together.</summary>
    public virtual int RowsPerBlock => 1;

    public double BitsPerWeight => 8.0 * BytesPerBlock / ValuesPerBlock;

    /// <summary>False for types that are listed and sized only.</summary>
    public virtual bool CanDecode => true;

    /// <summary>True when <see cref="EncodeRow"/> writes this type.</summary>
    public virtual bool CanEncode => false;

    /// <summary>Values up to this magnitude encode to finite ones; above it a stored scale or value may overflow to infinity.</summary>
    public virtual float LargestMagnitude => float.MaxValue;

    /// <summary>True for types whose rows hold block-wise codes under fitted parameters, false for one value at a time.</summary>
    public virtual bool IsQuantized => ValuesPerBlock > 1;

    /// <summary>How rows of this type read as integers; null where they do not.</summary>
    public virtual IntegerForm? Integers => null;

    /// <summary>Bytes of <paramref name="valueCount"/> values, a multiple of <see cref="ValuesPerBlock"/>.</summary>
    public long ByteCount(long valueCount) => checked(valueCount / ValuesPerBlock * BytesPerBlock);

    /// <summary>Decodes whole blocks: <paramref name="values"/>.Length is a multiple of <see cref="ValuesPerBlock"/>.</summary>
    public abstract void Decode(ReadOnlySpan<byte> blocks, Span<float> values);

    /// <summary>
    /// Encodes one whole row, or whole blocks of it for types whose parameters are block-local.
    /// <paramref name="importance"/> is empty or one non-negative weight for each value.
    /// </summary>
    /// <param name="effort">How hard a type that has a choice looks for a small error, the sum of importance x squared difference.</param>
    /// <exception cref="NotSupportedException"><see cref="CanEncode"/> is false.</exception>
    public virtual void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) =>
        throw new NotSupportedException($"{Name} cannot be written");

    /// <summary>The refusal to read values of a type without a decoder; <paramref name="tensor"/> is the one that was asked for.</summary>
    public virtual QuantException CannotDecode(string? tensor) => new(ErrorKind.Unsupported, "values of this type cannot be read")
    {
        Tensor = tensor,
        Found = Name,
        Expected = "a type with a decoder",
    };

    /// <summary>Encodes whole rows, from a multiple of <see cref="RowsPerBlock"/> on, and as many unless they end the tensor.</summary>
    /// <param name="importance">Empty or one non-negative weight for each column.</param>
    public virtual void EncodeRows(ReadOnlySpan<float> rows, int rowLength, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
    {
        int rowBytes = checked((int)ByteCount(rowLength));
        for (int row = 0; row < rows.Length / rowLength; row++) EncodeRow(rows.Slice(row * rowLength, rowLength), importance, effort, blocks.Slice(row * rowBytes, rowBytes));
    }

    public override string ToString() => Name;

    /// <exception cref="ArgumentException">The lengths are not those of the same number of whole blocks, or there are weights that are not one for each value.</exception>
    protected void CheckLengths(int valueCount, int byteCount, ReadOnlySpan<float> importance = default)
    {
        (int blockCount, int rest) = Math.DivRem(valueCount, ValuesPerBlock);
        if (rest != 0 || (long)blockCount * BytesPerBlock != byteCount) throw new ArgumentException($"{valueCount} values of {Name} are not {byteCount} bytes");
        if (importance.Length != 0 && importance.Length != valueCount) throw new ArgumentException($"{importance.Length} weights for {valueCount} values", nameof(importance));
    }
}
