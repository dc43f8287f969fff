using System.Buffers;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>
/// The tensors of a GPTQ checkpoint with each packed module as the one matrix <c>….weight</c> [O, I] that it stands for: rows of <see cref="IntegerGridType"/>,
/// or, where <c>g_idx</c> permutes the inputs, F32 values decoded at each reading. Thread-safe.
/// </summary>
public sealed class GptqCheckpoint : ITensorSource
{
    /// <summary>Bytes of rows that are brought out of the columns at a time.</summary>
    private const long ChunkBytes = 8 << 20;

    private readonly ITensorSource _source;
    private readonly GptqRows _rows;
    private readonly Dictionary<string, GptqLinear> _linears;
    private readonly Dictionary<string, TensorEntry> _entries;

    private GptqCheckpoint(ITensorSource source, GptqSettings settings, Dictionary<string, GptqLinear> linears, List<TensorEntry> tensors, string path)
    {
        _source = source;
        _rows = new GptqRows(source, settings.IsV2, path);
        _linears = linears;
        Tensors = tensors;
        _entries = tensors.ToDictionary(entry => entry.Name, StringComparer.Ordinal);
        Settings = settings;
    }

    public GptqSettings Settings { get; }

    /// <summary>Plain tensors and, where its codes lie, each packed matrix.</summary>
    public IReadOnlyList<TensorEntry> Tensors { get; }

    /// <summary>Views the tensors of a container, which the view owns from then on; when this throws it stays the caller's. Reads every <c>g_idx</c>.</summary>
    /// <param name="path">Shown in errors.</param>
    /// <exception cref="QuantException">PK-2, PK-3, PK-4.</exception>
    public static GptqCheckpoint Over(ITensorSource source, GptqSettings settings, string path)
    {
        GptqModules modules = new(source, settings, path);
        Dictionary<string, GptqLinear> linears = new(StringComparer.Ordinal);
        List<TensorEntry> tensors = [];
        foreach (TensorEntry entry in source.Tensors)
        {
            if (modules.Find(entry) is not { } module) tensors.Add(entry);
            else if (entry.Name == module + GptqLinear.CodesSuffix)
            {
                GptqLinear linear = modules.Read(module);
                string name = module + GptqLinear.WeightSuffix;
                linears.Add(name, linear);
                tensors.Add(new TensorEntry(name, linear.ColumnOrder is null ? linear.Type : PlainTypes.F32, linear.Shape, entry.ByteOffset, entry.FileIndex));
            }
        }

        if (linears.Count > 0) return new GptqCheckpoint(source, settings, linears, tensors, path);
        throw new QuantException(ErrorKind.InvalidInput, "the configuration says gptq, and no module is packed")
        {
            Rule = PackedRules.Parts,
            Path = path,
            Expected = "tensors named …" + GptqLinear.CodesSuffix,
            Remedy = "Remove the quantization configuration if the weights are plain.",
        };
    }

    public TensorEntry? Find(string name) => _entries.GetValueOrDefault(name);

    public TensorEntry? FindStored(string name)
    {
        TensorEntry? entry = Find(name);
        return entry is not null && _linears.TryGetValue(name, out GptqLinear? linear) ? entry with { Type = linear.Type } : entry;
    }

    public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination)
    {
        if (!_linears.TryGetValue(entry.Name, out GptqLinear? linear))
        {
            _source.ReadRaw(entry, byteOffset, destination);
            return;
        }

        ArgumentOutOfRangeException.ThrowIfNegative(byteOffset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(byteOffset, entry.ByteLength - destination.Length);
        if (destination.IsEmpty) return;
        const int granule = GptqLinear.RowGranule;
        long entryRowBytes = entry.Type.ByteCount(linear.RowLength), storedRowBytes = linear.Type.ByteCount(linear.RowLength);
        int rowsPerChunk = (int)Math.Max(ChunkBytes / storedRowBytes / granule, 1) * granule;
        int end = (int)((byteOffset + destination.Length + entryRowBytes - 1) / entryRowBytes);
        end = (end + granule - 1) / granule * granule;
        for (int row = (int)(byteOffset / entryRowBytes) / granule * granule; row < end; row += rowsPerChunk)
        {
            int count = Math.Min(rowsPerChunk, end - row);
            byte[] stored = ArrayPool<byte>.Shared.Rent(checked((int)(count * storedRowBytes)));
            try
            {
                Span<byte> rows = stored.AsSpan(0, (int)(count * storedRowBytes));
                _rows.Read(linear, row, count, rows);
                if (ReferenceEquals(entry.Type, linear.Type)) Copy(rows, row * storedRowBytes, byteOffset, destination);
                else CopyValues(linear, rows, row, byteOffset, destination);
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

    private static void CopyValues(GptqLinear linear, ReadOnlySpan<byte> rows, int firstRow, long byteOffset, Span<byte> destination)
    {
        int rowBytes = (int)linear.Type.ByteCount(linear.RowLength);
        float[] sorted = new float[linear.RowLength], values = new float[linear.RowLength];
        for (int row = 0; row < rows.Length / rowBytes; row++)
        {
            linear.Type.Decode(rows.Slice(row * rowBytes, rowBytes), sorted);
            for (int place = 0; place < sorted.Length; place++) values[linear.ColumnOrder![place]] = sorted[place];
            Copy(MemoryMarshal.AsBytes<float>(values), (firstRow + row) * (long)linear.RowLength * sizeof(float), byteOffset, destination);
        }
    }
}
