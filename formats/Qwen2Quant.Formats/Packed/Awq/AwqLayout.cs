using System.Buffers;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Awq;

/// <summary>AWQ's layout, GEMM version: 4 bits with zeros, whole groups, and outputs that fill whole words.</summary>
public sealed class AwqLayout : PackedLayout
{
    public static AwqLayout Instance { get; } = new();

    public override bool Fits(ElementType type, Shape shape) =>
        type is IntegerGridType { Bits: 4, IsSymmetric: false } grid && shape.Rank == 2 && shape[0] % AwqMatrix.Granule == 0 && shape[1] % grid.GroupLength == 0;

    public override int OutputMultiple => AwqMatrix.Granule;

    public override IReadOnlyList<OutputTensor> Parts(string name, ElementType type, Shape shape) => AwqMatrix.Parts(Module(name), (IntegerGridType)type, shape);

    public override IScatteredTarget Target(ElementType type, Shape shape, IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts) => new AwqTarget((IntegerGridType)type, shape, parts);

    private sealed class AwqTarget(IntegerGridType type, Shape shape, IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts) : PackedTarget(parts)
    {
        private readonly int _rowCount = checked((int)shape[0]), _rowLength = checked((int)shape[1]);

        public override int RowGranule => AwqMatrix.Granule;

        public override void Write(IReadOnlyList<IWriteFile> files, long firstRow, Span<byte> rows, ReadOnlySpan<int> columnOrder)
        {
            RequireNoOrder(columnOrder);
            int rowBytes = checked((int)type.ByteCount(_rowLength)), count = rows.Length / rowBytes, wordCount = count / RowGranule, groups = _rowLength / type.GroupLength;
            if (firstRow % RowGranule != 0 || count % RowGranule != 0) throw new ArgumentException($"rows {firstRow} to {firstRow + count} split a word", nameof(firstRow));
            long lineBytes = _rowCount / RowGranule * sizeof(uint), offset = firstRow / RowGranule * sizeof(uint);
            uint[] rented = ArrayPool<uint>.Shared.Rent(_rowLength * wordCount);
            Span<uint> lines = rented.AsSpan(0, _rowLength * wordCount);
            AwqWords.ToLines(type, rows, _rowLength, count, lines);
            WriteLines(files, 0, lineBytes, offset, MemoryMarshal.AsBytes(lines), _rowLength);
            lines = lines[..(groups * wordCount)];
            for (int group = 0; group < groups; group++)
            {
                for (int word = 0; word < wordCount; word++)
                {
                    uint zeros = 0;
                    for (int row = 0; row < RowGranule; row++) zeros |= (uint)rows[(((word * RowGranule) + row) * rowBytes) + (group * type.BytesPerBlock) + sizeof(ushort)] << (4 * row);
                    lines[(group * wordCount) + word] = AwqWords.FromNatural(zeros);
                }
            }

            WriteLines(files, 1, lineBytes, offset, MemoryMarshal.AsBytes(lines), groups);
            ArrayPool<uint>.Shared.Return(rented);
            WriteScales(files, 2, type, _rowCount, firstRow, count, rows);
        }
    }
}
