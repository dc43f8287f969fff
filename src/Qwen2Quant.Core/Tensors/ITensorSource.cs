namespace Qwen2Quant.Core.Tensors;

/// <summary>A tensor of an opened container. Offsets are validated before an entry exists.</summary>
/// <param name="Name">Name as the container or view spells it.</param>
/// <param name="ByteOffset">First byte, counted from the start of file <paramref name="FileIndex"/> of the source.</param>
public sealed record TensorEntry(string Name, ElementType Type, Shape Shape, long ByteOffset, int FileIndex = 0)
{
    public long ByteLength => Type.ByteCount(Shape.ValueCount);

    /// <summary>Part <paramref name="index"/> of the outermost dimension as an entry of its own (one expert of a stack).</summary>
    public TensorEntry Slice(string name, long index)
    {
        Shape inner = new(Shape.Dimensions[1..]);
        return new TensorEntry(name, Type, inner, checked(ByteOffset + (index * Type.ByteCount(inner.ValueCount))), FileIndex);
    }

    /// <summary>Rows <paramref name="firstRow"/> and on of a matrix as an entry of its own.</summary>
    public TensorEntry Rows(string name, long firstRow, long rowCount) =>
        new(name, Type, new Shape(rowCount, Shape.RowLength), checked(ByteOffset + (firstRow * Type.ByteCount(Shape.RowLength))), FileIndex);
}

/// <summary>
/// The one way to read weights, whatever the container and the type. Thread-safe: reads are positional.
/// </summary>
public interface ITensorSource : IDisposable
{
    /// <summary>All tensors, in the container's order.</summary>
    IReadOnlyList<TensorEntry> Tensors { get; }

    /// <summary>The tensor of that name, or null.</summary>
    TensorEntry? Find(string name);

    /// <summary>
    /// The tensor by the codes that the container holds, or null: as <see cref="Find"/>, save that a matrix whose columns the container permutes is here rows of
    /// its blocks, as <see cref="IScatteredTarget"/> wrote them, where <see cref="Find"/> gives decoded values in the order of the columns.
    /// </summary>
    TensorEntry? FindStored(string name) => Find(name);

    /// <summary>Fills <paramref name="destination"/> with bytes of <paramref name="entry"/> from <paramref name="byteOffset"/> (within the tensor) on.</summary>
    void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination);
}
