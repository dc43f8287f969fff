using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Core.Tensors;

/// <summary>Where the rows of one tensor go in a layout that does not store them one after the other. Thread-safe: rows are written by several workers.</summary>
public interface IScatteredTarget
{
    /// <summary>Rows written at a time start at a multiple of this many, and are a multiple of it unless they end the tensor.</summary>
    int RowGranule { get; }

    /// <summary>Bytes in the files, of all parts together.</summary>
    long ByteLength { get; }

    /// <summary>Writes whole rows, blocks of the tensor's element type back to back.</summary>
    /// <param name="files">The opened files of the plan.</param>
    /// <param name="rows">Where columns are permuted these are brought into the order in which a reader finds them: by group, and by column inside a group.</param>
    /// <param name="columnOrder">Empty, or for each place in a row the column that it holds.</param>
    void Write(IReadOnlyList<IWriteFile> files, long firstRow, Span<byte> rows, ReadOnlySpan<int> columnOrder);
}
