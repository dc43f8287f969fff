using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed.Float;

namespace Qwen2Quant.Formats.Packed.CompressedTensors;

/// <summary>Plain fp8 as <c>--to</c> spells it, <c>fp8:tensor</c>: E4M3 under one scale for each matrix, the same for those that engines fuse.</summary>
public sealed record Fp8Scheme : PackedScheme
{
    private const string Prefix = "fp8:", Tensor = "tensor";

    /// <summary>What there is, for messages.</summary>
    public const string Forms = Prefix + Tensor;

    public override PackedLayout Layout => new CtLayout(isBytes: false);

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

    public override ElementType? TypeFor(long rowLength, ElementType plain, Magnitudes largest) => Fp8TensorType.Fitting(largest.Weights, PlainTypes.F32);

    public override string ToString() => Forms;
}
