using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Solving;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Running;

/// <summary>
/// Executes a plan: slabs of rows are read, encoded and written at their planned offsets by several workers.
/// Slabs are fixed by the shapes alone, so neither the bytes nor the error sums depend on the number of threads,
/// and memory is a few slabs for each worker, whatever the size of the model.
/// </summary>
internal sealed class ConversionRunner
{
    /// <summary>Source and target bytes of one slab together: large enough that a system call is nothing, small enough for a core's second-level cache.</summary>
    private const long SlabBytes = 2 << 20;

    /// <summary>Floats decoded at a time; with their encoded bytes they stay within a first-level cache.</summary>
    private const int ChunkValues = 4 << 10;

    /// <summary>Rows of a scattered slab at least: each of its runs in the file is then a kilobyte or more of 32-bit words.</summary>
    private const long LeastScatteredRows = 256;

    private readonly ITensorSource _source;
    private readonly ConversionPlan _plan;
    private readonly ISolver _solver;
    private readonly Effort _effort;
    private readonly RunContext _context;
    private readonly List<Slab> _slabs;
    private readonly ulong[] _checksums;
    private readonly ErrorSums?[] _sums;
    private readonly SlabJournal? _journal;

    /// <param name="journal">Where written slabs are recorded, for a run that may have to be taken up; null for nowhere.</param>
    public ConversionRunner(ITensorSource source, ConversionPlan plan, ISolver solver, Effort effort, RunContext context, SlabJournal? journal = null)
    {
        _journal = journal;
        _source = source;
        _plan = plan;
        _solver = solver;
        _effort = effort;
        _context = context;
        _slabs = CutSlabs(plan);
        _checksums = new ulong[_slabs.Count];
        _sums = new ErrorSums?[_slabs.Count];
    }

    /// <summary>Bytes of slabs that an earlier run had written.</summary>
    public long TakenBytes { get; private set; }

    /// <summary>Takes over the slabs that the journal names, unseen: <see cref="Verify"/> reads all of them.</summary>
    public void TakeWritten()
    {
        if (_journal is null) return;
        foreach ((int index, WrittenSlab written) in _journal.Written.Where(pair => pair.Key >= 0 && pair.Key < _slabs.Count))
        {
            _checksums[index] = written.Checksum;
            _sums[index] = written.Sums;
            TakenBytes += _slabs[index].TargetBytes;
        }
    }

    /// <summary>Takes back what <see cref="TakeWritten"/> took over.</summary>
    public void ForgetTaken()
    {
        foreach (int index in _journal!.Written.Keys.Where(index => index >= 0 && index < _slabs.Count)) _sums[index] = null;
        TakenBytes = 0;
    }

    /// <summary>Fills the tensors of <paramref name="files"/>, one opened file for each planned one, but for slabs that were taken over.</summary>
    /// <param name="share">Only every so many slabs, from the first of these on.</param>
    public void Run(IReadOnlyList<IWriteFile> files, Share? share = null)
    {
        int[] missing = [.. Enumerable.Range(0, _slabs.Count).Where(index => _sums[index] is null && (share is null || share.Takes(index)))];
        using IProgressTask progress = _context.Progress.Start("Writing", missing.Sum(index => _slabs[index].TargetBytes), "B");
        Workers.Run(_context.Threads, missing.Length, () => new Buffers(), (unit, buffers) =>
        {
            int index = missing[unit];
            _sums[index] = Encode(_slabs[index], index, files, buffers);
            progress.Advance(_slabs[index].TargetBytes);
        }, _context.Cancellation);
    }

    /// <summary>The error sums of each item, once all slabs are written.</summary>
    public IReadOnlyList<ErrorSums> Sums()
    {
        ErrorSums[] byItem = [.. _plan.Items.Select(_ => new ErrorSums())];
        for (int index = 0; index < _slabs.Count; index++) byItem[_slabs[index].ItemIndex].Add(_sums[index]!);
        return byItem;
    }

    /// <summary>Reads every slab back through the public reader and compares it with what was meant to be written.</summary>
    /// <exception cref="QuantException">A tensor is not where the plan has it, or holds something else.</exception>
    public void Verify(ITensorSource output)
    {
        foreach (PlanItem item in _plan.Items) RequireAsPlanned(item, output.FindStored(item.Name));
        Workers.Run(_context.Threads, _slabs.Count, () => new Buffers(), (index, buffers) => RequireAsWritten(output, index, buffers), _context.Cancellation);
    }

    private void RequireAsPlanned(PlanItem item, TensorEntry? entry)
    {
        OutputTensor expected = item.Target.Tensor;
        if (entry is not null && ReferenceEquals(entry.Type, expected.Type) && entry.Shape.Equals(expected.Shape) && entry.ByteOffset == item.Target.ByteOffset) return;
        throw new QuantException(ErrorKind.Verification, "the output does not read back as planned")
        {
            Path = _plan.Target,
            Tensor = item.Name,
            Found = entry is null ? "no such tensor" : $"{entry.Type} {entry.Shape} at {entry.ByteOffset}",
            Expected = $"{expected.Type} {expected.Shape} at {item.Target.ByteOffset}",
        };
    }

    private void RequireAsWritten(ITensorSource output, int index, Buffers buffers)
    {
        Slab slab = _slabs[index];
        Span<byte> stored = Buffers.Take(ref buffers.Encoded, checked((int)slab.TargetBytes));
        output.ReadRaw(output.FindStored(slab.Item.Name)!, slab.TensorOffset, stored);
        if (SlabChecksum.Compute(stored) == _checksums[index]) return;
        throw new QuantException(ErrorKind.Verification, "the output does not hold what was written")
        {
            Path = _plan.Target,
            Tensor = slab.Item.Name,
            ByteOffset = slab.Item.Target.ByteOffset + (slab.Item.Scattered is null ? slab.TensorOffset : 0),
            Remedy = "Check the disk.",
        };
    }

    private static List<Slab> CutSlabs(ConversionPlan plan)
    {
        List<Slab> slabs = [];
        for (int itemIndex = 0; itemIndex < plan.Items.Count; itemIndex++)
        {
            PlanItem item = plan.Items[itemIndex];
            if (item.IsVerbatim)
            {
                for (long offset = 0; offset < item.ByteLength; offset += SlabBytes) slabs.Add(new Slab(itemIndex, item, item.Parts[0], default, 0, 0, offset, Math.Min(SlabBytes, item.ByteLength - offset)));
                continue;
            }

            long tensorOffset = 0;
            for (int partIndex = 0; partIndex < item.Parts.Count; partIndex++)
            {
                TensorEntry part = item.Parts[partIndex];
                (string Name, int Part, int PartCount) of = item.ImportanceOf ?? (item.Name, partIndex, item.Parts.Count);
                ReadOnlyMemory<float> importance = plan.Importance?.Weights(of.Name, of.Part, of.PartCount) ?? default;
                long rowLength = part.Shape.RowLength;
                long sourceRowBytes = part.Type.ByteCount(rowLength);
                long targetRowBytes = item.Target.Tensor.Type.ByteCount(rowLength);
                long rowsPerSlab = Math.Max(1, SlabBytes / Math.Max(1, sourceRowBytes + targetRowBytes));
                if (item.Scattered is { } scattered) rowsPerSlab = (Math.Max(rowsPerSlab, LeastScatteredRows) + scattered.RowGranule - 1) / scattered.RowGranule * scattered.RowGranule;
                for (long row = 0; row < part.Shape.RowCount; row += rowsPerSlab)
                {
                    int rows = (int)Math.Min(rowsPerSlab, part.Shape.RowCount - row);
                    slabs.Add(new Slab(itemIndex, item, part, importance, row, rows, tensorOffset, rows * targetRowBytes));
                    tensorOffset += rows * targetRowBytes;
                }
            }
        }

        return slabs;
    }

    /// <summary>That many rows or more, in whole tiles of a type.</summary>
    private static int WholeTiles(ElementType type, int rows) => (rows + type.RowsPerBlock - 1) / type.RowsPerBlock * type.RowsPerBlock;

    private ErrorSums Encode(Slab slab, int index, IReadOnlyList<IWriteFile> files, Buffers buffers)
    {
        if (slab.Item.IsVerbatim)
        {
            Span<byte> bytes = Buffers.Take(ref buffers.Raw, (int)slab.TargetBytes);
            _source.ReadRaw(slab.Part, slab.TensorOffset, bytes);
            ErrorSums none = new();
            Write(slab, index, files, bytes, default, none);
            return none;
        }

        ElementType target = slab.Item.Target.Tensor.Type;
        int rowLength = checked((int)slab.Part.Shape.RowLength);
        int sourceRowBytes = checked((int)slab.Part.Type.ByteCount(rowLength));
        int targetRowBytes = checked((int)target.ByteCount(rowLength));
        Span<byte> raw = Buffers.Take(ref buffers.Raw, slab.RowCount * sourceRowBytes);
        _source.ReadRaw(slab.Part, slab.FirstRow * sourceRowBytes, raw);

        bool isCopy = slab.Item.IsCopy;
        Span<byte> encoded = isCopy ? raw : Buffers.Take(ref buffers.Encoded, slab.RowCount * targetRowBytes);
        int rowsPerChunk = Math.Min(WholeTiles(target, Math.Max(ChunkValues / rowLength, 1)), slab.RowCount);
        Span<float> values = Buffers.Take(ref buffers.Values, rowsPerChunk * rowLength);
        ErrorSums sums = new();
        ExactRows? exact = slab.Item.IsExact ? ExactRows.Create(slab.Part.Type, target, rowLength) : null;
        for (int row = 0; row < slab.RowCount; row += rowsPerChunk)
        {
            int rows = Math.Min(rowsPerChunk, slab.RowCount - row);
            Span<float> chunk = values[..(rows * rowLength)];
            slab.Part.Type.Decode(raw.Slice(row * sourceRowBytes, rows * sourceRowBytes), chunk);
            if (isCopy || exact is not null) Verification.RequireFinite(slab.Part, slab.FirstRow + row, rowLength, chunk);
            if (exact is not null) WriteExactly(exact, slab, raw.Slice(row * sourceRowBytes, rows * sourceRowBytes), encoded.Slice(row * targetRowBytes, rows * targetRowBytes), rows, row);
            else if (!isCopy) _solver.Encode(new RowSlab(slab.Part.Name, slab.FirstRow + row, rowLength, chunk, slab.Importance.Span), target, _effort, encoded.Slice(row * targetRowBytes, rows * targetRowBytes), sums);
        }

        Write(slab, index, files, encoded, _source is SolvedOverlay overlay ? overlay.ColumnOrder(slab.Part.Name) : default, sums);
        return sums;
    }

    private static void WriteExactly(ExactRows exact, Slab slab, ReadOnlySpan<byte> raw, Span<byte> encoded, int rowCount, int firstRow)
    {
        (int from, int to) = (raw.Length / rowCount, encoded.Length / rowCount);
        for (int row = 0; row < rowCount; row++)
        {
            if (exact.TryWrite(raw.Slice(row * from, from), encoded.Slice(row * to, to))) continue;
            // The plan looked at every row.
            throw new QuantException(ErrorKind.InvalidInput, "the source was changed while it was read") { Rule = WeightFileRules.FileUnchanged, Tensor = slab.Part.Name, Found = $"row {slab.FirstRow + firstRow + row}", Remedy = "Run again when nothing writes to it." };
        }
    }

    private void Write(Slab slab, int index, IReadOnlyList<IWriteFile> files, Span<byte> encoded, ReadOnlySpan<int> columnOrder, ErrorSums sums)
    {
        try
        {
            if (slab.Item.Scattered is { } scattered)
            {
                scattered.Write(files, slab.TensorOffset / (slab.TargetBytes / slab.RowCount), encoded, columnOrder);
            }
            else
            {
                if (!columnOrder.IsEmpty) throw new ArgumentException("the layout keeps columns in their order", nameof(columnOrder));
                IWriteFile file = files[slab.Item.FileIndex];
                long offset = slab.Item.Target.ByteOffset + slab.TensorOffset;
                file.Write(offset, encoded);
                // The disk works while later slabs are encoded, and the flush at the end finds little to do.
                file.StartWriteBack(offset, encoded.Length);
            }

            // Not before: a scattered target may put the columns in their order.
            _checksums[index] = SlabChecksum.Compute(encoded);
            _journal?.Append(index, _checksums[index], sums);
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            throw PendingOutput.Failed(_plan.Target, error);
        }
    }

    private sealed record Slab(int ItemIndex, PlanItem Item, TensorEntry Part, ReadOnlyMemory<float> Importance, long FirstRow, int RowCount, long TensorOffset, long TargetBytes);

    /// <summary>What one worker keeps from slab to slab.</summary>
    private sealed class Buffers
    {
        public byte[] Raw = [];
        public byte[] Encoded = [];
        public float[] Values = [];

        public static Span<T> Take<T>(ref T[] buffer, int length)
        {
            if (buffer.Length < length) buffer = GC.AllocateUninitializedArray<T>(length);
            return buffer.AsSpan(0, length);
        }
    }
}
