using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>One matrix of a packed checkpoint, [O, I], whatever tensors it lies in: rows of an element type's blocks. Thread-safe.</summary>
/// <param name="name">Under which a plain checkpoint would have it: <c>….weight</c>.</param>
/// <param name="codes">The tensor that holds its codes, which stands for the place of the matrix.</param>
public abstract class PackedMatrix(string name, ElementType type, Shape shape, TensorEntry codes)
{
    public string Name { get; } = name;

    public ElementType Type { get; } = type;

    public Shape Shape { get; } = shape;

    public TensorEntry Codes { get; } = codes;

    /// <summary>Rows that the layout reads at a time, at least.</summary>
    public virtual int RowGranule => 1;

    /// <summary>For each place in a stored row the input that it holds, by group and by input inside a group; null where inputs are in their order.</summary>
    public virtual int[]? ColumnOrder => null;

    /// <summary>Reads rows <paramref name="firstRow"/> and on as blocks of the type, columns by group.</summary>
    /// <param name="firstRow">A multiple of <see cref="RowGranule"/>, as is <paramref name="rowCount"/> unless it ends the matrix.</param>
    public abstract void ReadRows(ITensorSource source, int firstRow, int rowCount, Span<byte> rows);
}
