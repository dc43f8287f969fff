using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed.Float;

namespace Qwen2Quant.Formats.Packed.CompressedTensors;

/// <summary>Plain fp8 as <c>--to</c> spells it: <c>fp8:tensor</c>, E4M3 under one scale for each matrix, the same for those that engines fuse; <c>fp8:block</c>, under one for each tile.</summary>
public sealed record Fp8Scheme(bool IsBlock) : PackedScheme
{
    /// <summary>Rows and columns of a tile.</summary>
    public const int TileLength = 128;

    private const string Prefix = "fp8:", Tensor = "tensor", Block = "block";

    /// <summary>What there is, for messages.</summary>
    public const string Forms = Prefix + Tensor + "|" + Block;

    public override PackedLayout Layout => new CtLayout(isBytes: false, IsBlock ? CtModules.InverseScaleSuffix : CtModules.ScaleSuffix);

    public override string DefaultMethod => "rtn";

    public override int GroupSize => IsBlock ? TileLength : -1;

    public override bool NeedsLargest => !IsBlock;

    public override IEnumerable<string> ReaderNotes => IsBlock ? [] : ["Transformers reads plain fp8 in blocks only; compressed-tensors:FP8_DYNAMIC is read by more, with a smaller error"];

    /// <inheritdoc cref="PackedScheme.Parse"/>
    public static new Fp8Scheme? Parse(string text)
    {
        if (!text.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase)) return null;
        return text[Prefix.Length..].ToLowerInvariant() switch
        {
            Tensor => new Fp8Scheme(false),
            Block => new Fp8Scheme(true),
            _ => throw new QuantException(ErrorKind.Usage, "there is no such scheme") { Found = text, Expected = Forms },
        };
    }

    public override bool Takes(ElementType type, ElementType scales) => !IsBlock && type is Fp8TensorType { InputScale: 0 } fp8 && ReferenceEquals(fp8.ScaleType, PlainTypes.F32);

    public override ElementType? TypeFor(long rowLength, ElementType plain, Magnitudes largest) => IsBlock ? Fp8Type.Of(TileLength, PlainTypes.F32, TileLength) : Fp8TensorType.Fitting(largest.Weights, PlainTypes.F32);

    public override string ToString() => Prefix + (IsBlock ? Block : Tensor);
}
