using System.Buffers;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>
/// The tensors of a packed checkpoint with each packed module as the one matrix <c>….weight</c> [O, I] that it stands for: rows of its element type,
/// or, where the layout permutes the inputs, F32 values decoded at each reading. Thread-safe.
/// </summary>
public sealed class PackedCheckpoint : ITensorSource
{
    /// <summary>Bytes of rows that are brought out of the container at a time.</summary>
    private const long ChunkBytes = 8 << 20;

    private readonly ITensorSource _source;
    private readonly Dictionary<string, PackedMatrix> _matrices;
    private readonly Dictionary<string, TensorEntry> _entries;

    private PackedCheckpoint(ITensorSource source, string layoutName, Dictionary<string, PackedMatrix> matrices, List<TensorEntry> tensors)
    {
        (_source, LayoutName, _matrices, Tensors) = (source, layoutName, matrices, tensors);
        _entries = tensors.ToDictionary(entry => entry.Name, StringComparer.Ordinal);
    }

    /// <summary>The layout, for people.</summary>
    public string LayoutName { get; }

    /// <summary>Plain tensors and, where its codes lie, each packed matrix.</summary>
    public IReadOnlyList<TensorEntry> Tensors { get; }

    /// <summary>Views the tensors of a container, which the view owns from then on; when this throws it stays the caller's.</summary>
    /// <param name="path">Shown in errors.</param>
    /// <exception cref="QuantException">PK-2, PK-3, PK-4.</exception>
    public static PackedCheckpoint Over(ITensorSource source, IPackedModules modules, string path)
    {
        Dictionary<string, PackedMatrix> matrices = new(StringComparer.Ordinal);
        List<TensorEntry> tensors = [];
        foreach (TensorEntry entry in source.Tensors)
        {
            if (!modules.TryRead(entry, out IReadOnlyList<PackedMatrix> found)) tensors.Add(entry);
            foreach (PackedMatrix matrix in found)
            {
                matrices.Add(matrix.Name, matrix);
                tensors.Add(new TensorEntry(matrix.Name, matrix.ColumnOrder is null ? matrix.Type : PlainTypes.F32, matrix.Shape, matrix.Codes.ByteOffset, matrix.Codes.FileIndex));
            }
        }

        if (matrices.Count > 0) return new PackedCheckpoint(source, modules.LayoutName, matrices, tensors);
        throw new QuantException(ErrorKind.InvalidInput, $"the configuration says {modules.LayoutName}, and no module is packed")
        {
            Rule = PackedRules.Parts,
            Path = path,
            Expected = "tensors named …" + modules.CodesSuffix,
            Remedy = "Remove the quantization configuration if the weights are plain.",
        };
    }

    public TensorEntry? Find(string name) => _entries.GetValueOrDefault(name);

    public TensorEntry? FindStored(string name)
    {
        TensorEntry? entry = Find(name);
        return entry is not null && _matrices.TryGetValue(name, out PackedMatrix? matrix) ? entry with { Type = matrix.Type } : entry;
    }

    public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination)
    {
        if (!_matrices.TryGetValue(entry.Name, out PackedMatrix? matrix))
        {
            _source.ReadRaw(entry, byteOffset, destination);
            return;
        }

        ArgumentOutOfRangeException.ThrowIfNegative(byteOffset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(byteOffset, entry.ByteLength - destination.Length);
        if (destination.IsEmpty) return;
        int granule = matrix.RowGranule;
        long entryRowBytes = entry.Type.ByteCount(matrix.Shape.RowLength), storedRowBytes = matrix.Type.ByteCount(matrix.Shape.RowLength);
        int rowsPerChunk = (int)Math.Max(ChunkBytes / storedRowBytes / granule, 1) * granule;
        int end = (int)((byteOffset + destination.Length + entryRowBytes - 1) / entryRowBytes);
        end = (int)Math.Min((end + granule - 1) / granule * (long)granule, matrix.Shape.RowCount);
        for (int row = (int)(byteOffset / entryRowBytes) / granule * granule; row < end; row += rowsPerChunk)
        {
            int count = Math.Min(rowsPerChunk, end - row);
            byte[] stored = ArrayPool<byte>.Shared.Rent(checked((int)(count * storedRowBytes)));
            try
            {
                Span<byte> rows = stored.AsSpan(0, (int)(count * storedRowBytes));
                matrix.ReadRows(_source, row, count, rows);
                if (ReferenceEquals(entry.Type, matrix.Type)) Copy(rows, row * storedRowBytes, byteOffset, destination);
                else CopyValues(matrix, rows, row, byteOffset, destination);
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(stored);
            }
        }
    }

    public void Dispose() => _source.Dispose();

    /// <summary>Copies what two pieces of one tensor have in common.</summary>
    private static void Copy(ReadOnlySpan<byte> piece, long pieceOffset, long byteOffset, Span<byte> destination)
    {
        long from = Math.Max(pieceOffset, byteOffset), to = Math.Min(pieceOffset + piece.Length, byteOffset + destination.Length);
        if (from < to) piece[(int)(from - pieceOffset)..(int)(to - pieceOffset)].CopyTo(destination[(int)(from - byteOffset)..]);
    }

    private static void CopyValues(PackedMatrix matrix, ReadOnlySpan<byte> rows, int firstRow, long byteOffset, Span<byte> destination)
    {
        int rowLength = checked((int)matrix.Shape.RowLength), rowBytes = (int)matrix.Type.ByteCount(rowLength);
        float[] sorted = new float[rowLength], values = new float[rowLength];
        for (int row = 0; row < rows.Length / rowBytes; row++)
        {
            matrix.Type.Decode(rows.Slice(row * rowBytes, rowBytes), sorted);
            for (int place = 0; place < sorted.Length; place++) values[matrix.ColumnOrder![place]] = sorted[place];
            Copy(MemoryMarshal.AsBytes<float>(values), (firstRow + row) * (long)rowLength * sizeof(float), byteOffset, destination);
        }
    }
}
