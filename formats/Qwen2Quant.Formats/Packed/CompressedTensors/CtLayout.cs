using System.Runtime.InteropServices;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed.Float;

namespace Qwen2Quant.Formats.Packed.CompressedTensors;

/// <summary>The layouts of compressed-tensors: rows lie one after the other, codes and scales apart.</summary>
/// <param name="isBytes">8-bit integers as signed bytes, not in words.</param>
/// <param name="scaleSuffix">How the names of scales end.</param>
internal sealed class CtLayout(bool isBytes, string scaleSuffix = CtModules.ScaleSuffix) : PackedLayout
{
    /// <summary>Tiles are whole: engines cut matrices and fuse them at their bounds.</summary>
    public override bool Fits(ElementType type, Shape shape) =>
        shape.Rank == 2 && shape[1] % type.ValuesPerBlock == 0 && shape[0] % type.RowsPerBlock == 0 && (type is not IntegerGridType { IsSymmetric: false } grid || shape[0] % (BitFields.WordRun / grid.Bits) == 0);

    public override IReadOnlyList<OutputTensor> Parts(string name, ElementType type, Shape shape)
    {
        string module = Module(name);
        (long rows, long inputs) = (shape[0], shape[1]);
        Shape groups = new(rows, inputs / type.ValuesPerBlock);
        switch (type)
        {
            case IntegerGridType when isBytes:
                return [new(name, PlainTypes.I8, shape), new(module + CtModules.ScaleSuffix, ((IntegerGridType)type).ScaleType, groups)];
            case IntegerGridType grid:
                int perWord = BitFields.WordRun / grid.Bits;
                List<OutputTensor> parts =
                [
                    new(module + CtModules.PackedSuffix, PlainTypes.I32, new Shape(rows, inputs / perWord)),
                    new(module + CtModules.ScaleSuffix, grid.ScaleType, groups),
                    new(module + CtModules.ShapeSuffix, PlainTypes.I64, new Shape(2)),
                ];
                if (!grid.IsSymmetric) parts.Add(new(module + CtModules.ZerosSuffix, PlainTypes.I32, new Shape(rows / perWord, groups[1])));
                return parts;
            case Fp8TensorType fp8:
                List<OutputTensor> scaled = [new(name, PlainTypes.F8E4M3, shape), new(module + CtModules.ScaleSuffix, fp8.ScaleType, new Shape(1))];
                if (fp8.InputScale > 0) scaled.Add(new(module + CtModules.InputScaleSuffix, fp8.ScaleType, new Shape(1)));
                return scaled;
            case Fp8Type fp8:
                return [new(name, PlainTypes.F8E4M3, shape), new(module + scaleSuffix, fp8.ScaleType, new Shape(rows / fp8.RowsPerScale, groups[1]))];
            case Nvfp4Type:
                return
                [
                    new(module + CtModules.PackedSuffix, PlainTypes.U8, new Shape(rows, inputs / 2)),
                    new(module + CtModules.ScaleSuffix, PlainTypes.F8E4M3, groups),
                    new(module + CtModules.DivisorSuffix, PlainTypes.F32, new Shape(1)),
                ];
            default:
                return [new(module + CtModules.PackedSuffix, PlainTypes.U8, new Shape(rows, inputs / 2)), new(module + CtModules.ScaleSuffix, PlainTypes.U8, groups)];
        }
    }

    public override IScatteredTarget Target(ElementType type, Shape shape, IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts) => new CtTarget(type, shape, isBytes, parts);

    private sealed class CtTarget(ElementType type, Shape shape, bool isBytes, IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts) : PackedTarget(parts)
    {
        public override int RowGranule => type is IntegerGridType { IsSymmetric: false } grid ? BitFields.WordRun / grid.Bits : type.RowsPerBlock;

        public override void Write(IReadOnlyList<IWriteFile> files, long firstRow, Span<byte> rows, ReadOnlySpan<int> columnOrder)
        {
            RequireNoOrder(columnOrder);
            if (type is Fp8TensorType fp8Tensor)
            {
                WritePart(files, 0, firstRow * shape[1], rows);
                if (firstRow == 0) WriteScales(files, fp8Tensor);
                return;
            }

            int blockBytes = type.BytesPerBlock, blockCount = rows.Length / blockBytes, groups = (int)(shape[1] / type.ValuesPerBlock), rowCount = blockCount / groups;
            int scaleBytes = type switch { IntegerGridType => sizeof(ushort), Fp8Type fp8 => fp8.ScaleType.BytesPerBlock, _ => 1 };
            int codesOffset = type is IntegerGridType grid ? grid.CodesOffset : scaleBytes, codeBytes = blockBytes - codesOffset;
            // The rows of a tile repeat its scales.
            int tileBlocks = groups * type.RowsPerBlock;
            byte[] codes = new byte[blockCount * codeBytes], scales = new byte[blockCount / type.RowsPerBlock * scaleBytes];
            for (int block = 0; block < blockCount; block++)
            {
                ReadOnlySpan<byte> from = rows.Slice(block * blockBytes, blockBytes);
                if (block % tileBlocks < groups) from[..scaleBytes].CopyTo(scales.AsSpan(((block / tileBlocks * groups) + (block % tileBlocks)) * scaleBytes));
                Span<byte> to = codes.AsSpan(block * codeBytes, codeBytes);
                if (type is IntegerGridType or Fp8Type or Nvfp4Type) from[codesOffset..].CopyTo(to);
                else Fp4Matrix.ToNeighbours(from[codesOffset..], to);
            }

            if (isBytes) CtIntegerMatrix.FlipSigns(codes);
            WritePart(files, 0, firstRow * groups * codeBytes, codes);
            WritePart(files, 1, firstRow / type.RowsPerBlock * groups * scaleBytes, scales);
            if (type is IntegerGridType { IsSymmetric: false } asymmetric) WriteZeros(files, asymmetric, firstRow, rowCount, groups, rows);
            if (firstRow == 0) WriteConstants(files);
        }

        private void WriteScales(IReadOnlyList<IWriteFile> files, Fp8TensorType fp8)
        {
            byte[] stored = new byte[fp8.ScaleType.BytesPerBlock];
            foreach ((int part, float scale) in new[] { (1, fp8.Scale), (2, fp8.InputScale) })
            {
                if (part == PartCount) return;
                new StoredScale(fp8.ScaleType).Write(scale, stored);
                WritePart(files, part, 0, stored);
            }
        }

        private void WriteZeros(IReadOnlyList<IWriteFile> files, IntegerGridType grid, long firstRow, int rowCount, int groups, ReadOnlySpan<byte> rows)
        {
            uint[] words = new uint[rowCount / RowGranule * groups];
            for (int row = 0; row < rowCount; row++)
            {
                for (int group = 0; group < groups; group++)
                {
                    words[(row / RowGranule * groups) + group] |= (uint)grid.ZeroOf(rows.Slice(((row * groups) + group) * grid.BytesPerBlock, grid.BytesPerBlock)) << (row % RowGranule * grid.Bits);
                }
            }

            WritePart(files, 3, firstRow / RowGranule * groups * sizeof(uint), MemoryMarshal.AsBytes<uint>(words));
        }

        private void WriteConstants(IReadOnlyList<IWriteFile> files)
        {
            if (type is Nvfp4Type nvfp4) WritePart(files, 2, 0, MemoryMarshal.AsBytes<float>([nvfp4.Divisor]));
            else if (type is IntegerGridType && !isBytes) WritePart(files, 2, 0, MemoryMarshal.AsBytes<long>([shape[0], shape[1]]));
        }
    }
}
