using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Model;

/// <summary>One matrix of the forward pass, or several with the same input stacked (q, k and v; gate and up): its blocks as stored, resident or read at each use.</summary>
internal sealed unsafe class WeightMatrix
{
    private readonly Part[] _parts;
    private readonly int _depth;
    private readonly bool _exact;

    /// <param name="exact">Multiplies floats even where a type has integers.</param>
    public WeightMatrix(ITensorSource source, bool exact, params TensorEntry[] parts)
    {
        _parts = [.. parts.Select(part => new Part(source, part))];
        _depth = checked((int)parts[0].Shape.RowLength);
        _exact = exact;
        RowCount = checked(_parts.Sum(part => part.RowCount));
    }

    /// <summary>Output channels.</summary>
    public int RowCount { get; }

    /// <summary>Bytes that it takes once <see cref="MakeResident"/> has run.</summary>
    public long ResidentBytes => _parts.Sum(part => part.ByteCount);

    /// <summary>Reads the blocks once and for all.</summary>
    public void MakeResident(WorkerTeam team)
    {
        foreach (Part part in _parts) part.MakeResident(team);
    }

    /// <summary>Drops the blocks; they are read at each use again.</summary>
    public void Release()
    {
        foreach (Part part in _parts) part.Release();
    }

    /// <summary>Takes other bytes for the part of that name, resident at once where it was; false where there is none.</summary>
    public bool Replace(string name, ITensorSource source, TensorEntry entry, WorkerTeam team)
    {
        int index = Array.FindIndex(_parts, part => part.Name == name);
        if (index < 0) return false;
        Part old = _parts[index], replaced = new(source, entry);
        if (replaced.RowCount != old.RowCount || entry.Shape.RowLength != _depth) throw new ArgumentException($"{entry.Shape} for {old.RowCount} rows of {_depth}", nameof(entry));
        if (old.IsResident) replaced.MakeResident(team);
        old.Release();
        _parts[index] = replaced;
        return true;
    }

    /// <summary>One row of the first part, <paramref name="destination"/>.Length floats.</summary>
    public void ReadRow(int row, Span<float> destination) => _parts[0].ReadRow(row, destination);

    /// <summary>c [rowCount, RowCount] = (c +) a [rowCount, depth] times the transposed matrix.</summary>
    public void Multiply(float* a, int rowCount, float* c, WorkerTeam team, bool accumulate = false) =>
        WeightProduct.Multiply(a, rowCount, _depth, _parts, c, RowCount, team, accumulate, _exact);

    private sealed class Part : WeightBlocks
    {
        // Bytes read in one call.
        private const int PieceBytes = 4 << 20;

        private readonly ITensorSource _source;
        private readonly TensorEntry _entry;
        private readonly long _rowBytes;
        private NativeFloats? _resident;

        public Part(ITensorSource source, TensorEntry entry)
        {
            if (!entry.Type.CanDecode) throw entry.Type.CannotDecode(entry.Name);
            _source = source;
            _entry = entry;
            _rowBytes = entry.Type.ByteCount(entry.Shape.RowLength);
            RowCount = checked((int)entry.Shape.RowCount);
        }

        public string Name => _entry.Name;

        public bool IsResident => _resident is not null;

        public override ElementType Type => _entry.Type;

        public override int RowCount { get; }

        public long ByteCount => checked(RowCount * _rowBytes);

        public void MakeResident(WorkerTeam team)
        {
            if (_resident is not null) return;
            NativeFloats storage = new();
            byte* first = (byte*)storage.Get((ByteCount + sizeof(float) - 1) / sizeof(float));
            team.Run(checked((int)((ByteCount + PieceBytes - 1) / PieceBytes)), piece =>
            {
                long offset = (long)piece * PieceBytes;
                int length = (int)Math.Min(PieceBytes, ByteCount - offset);
                _source.ReadRaw(_entry, offset, new Span<byte>(first + offset, length));
            });
            _resident = storage;
        }

        public void Release()
        {
            _resident?.Dispose();
            _resident = null;
        }

        public override byte* Rows(int firstRow, int rowCount, NativeFloats scratch)
        {
            if (_resident is not null) return (byte*)_resident.Get(0) + (firstRow * _rowBytes);
            int bytes = checked((int)(rowCount * _rowBytes));
            byte* rows = (byte*)scratch.Get((bytes + sizeof(float) - 1) / sizeof(float));
            _source.ReadRaw(_entry, firstRow * _rowBytes, new Span<byte>(rows, bytes));
            return rows;
        }

        public void ReadRow(int row, Span<float> destination)
        {
            if (_resident is null) _source.ReadRows(_entry, row, 1, destination);
            else Type.Decode(new ReadOnlySpan<byte>((byte*)_resident.Get(0) + (row * _rowBytes), checked((int)_rowBytes)), destination);
        }
    }
}
