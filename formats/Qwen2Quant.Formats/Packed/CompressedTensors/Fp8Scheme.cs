using System.Runtime.InteropServices;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed.Float;

namespace Qwen2Quant.Formats.Packed.CompressedTensors;

/// <summary>Plain fp8 as <c>--to</c> spells it, <c>fp8:tensor</c>: E4M3 under one scale for each matrix, the same for those that engines fuse.</summary>
public sealed record Fp8Scheme : PackedScheme
{
    private const string Prefix = "fp8:", Tensor = "tensor";

    /// <summary>What there is, for messages.</summary>
    public const string Forms = Prefix + Tensor;

    public override PackedLayout Layout => Fp8Layout.Instance;

    public override string DefaultMethod => "rtn";

    public override int GroupSize => -1;

    public override bool NeedsLargest => true;

    public override IEnumerable<string> ReaderNotes => ["Transformers reads plain fp8 in blocks only; compressed-tensors:FP8_DYNAMIC is read by more, with a smaller error"];

    /// <inheritdoc cref="PackedScheme.Parse"/>
    public static new Fp8Scheme? Parse(string text)
    {
        if (!text.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase)) return null;
        return text[Prefix.Length..].Equals(Tensor, StringComparison.OrdinalIgnoreCase) ? new Fp8Scheme() : throw new QuantException(ErrorKind.Usage, "there is no such scheme") { Found = text, Expected = Forms };
    }

    public override ElementType? TypeFor(long rowLength, ElementType plain, float largest) => Fp8TensorType.Of(largest > 0 ? largest / Float8.LargestE4M3 : 1);

    public override string ToString() => Forms;

    private sealed class Fp8Layout : PackedLayout
    {
        public static Fp8Layout Instance { get; } = new();

        public override bool Fits(ElementType type, Shape shape) => type is Fp8TensorType && shape.Rank == 2 && shape[1] % type.ValuesPerBlock == 0;

        public override IReadOnlyList<OutputTensor> Parts(string name, ElementType type, Shape shape) =>
            [new(name, PlainTypes.F8E4M3, shape), new(Module(name) + CtModules.ScaleSuffix, PlainTypes.F32, new Shape(1))];

        public override IScatteredTarget Target(ElementType type, Shape shape, IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts) => new Fp8Target((Fp8TensorType)type, shape, parts);
    }

    private sealed class Fp8Target(Fp8TensorType type, Shape shape, IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts) : IScatteredTarget
    {
        public int RowGranule => 1;

        public long ByteLength => parts.Sum(part => part.Tensor.Tensor.ByteLength);

        public void Write(IReadOnlyList<IWriteFile> files, long firstRow, Span<byte> rows, ReadOnlySpan<int> columnOrder)
        {
            if (!columnOrder.IsEmpty) throw new ArgumentException("the layout keeps columns in their order", nameof(columnOrder));
            files[parts[0].FileIndex].Write(parts[0].Tensor.ByteOffset + (firstRow * shape[1]), rows);
            if (firstRow == 0) files[parts[1].FileIndex].Write(parts[1].Tensor.ByteOffset, MemoryMarshal.AsBytes<float>([type.Scale]));
        }
    }
}
