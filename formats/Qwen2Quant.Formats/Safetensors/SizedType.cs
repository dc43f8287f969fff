using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>
/// A dtype whose size is known and whose values are not read: listed, copied byte for byte, never decoded.
/// Types of less than a byte are blocks of the fewest values that fill whole bytes.
/// </summary>
internal sealed class SizedType(string name, int valuesPerBlock, int bytesPerBlock) : ElementType
{
    public override string Name => name;
    public override int ValuesPerBlock => valuesPerBlock;
    public override int BytesPerBlock => bytesPerBlock;
    public override bool CanDecode => false;

    /// <summary>Blocks here only round to whole bytes: no parameters are known that values would share.</summary>
    public override bool IsQuantized => false;

    /// <summary>
    /// The type of a dtype that is not in the catalogue, its size in lowest terms from what one tensor occupies; null when no
    /// size fits. A tensor without values tells nothing: it counts as one byte each.
    /// </summary>
    public static SizedType? FromTensor(string name, long valueCount, long byteCount)
    {
        if (valueCount == 0 && byteCount == 0) return new SizedType(name, 1, 1);
        if (valueCount == 0 || byteCount == 0) return null;
        long divisor = GreatestCommonDivisor(valueCount, byteCount);
        long values = valueCount / divisor, bytes = byteCount / divisor;
        return values > int.MaxValue || bytes > int.MaxValue ? null : new SizedType(name, (int)values, (int)bytes);
    }

    public override QuantException CannotDecode(string? tensor) => new(ErrorKind.Unsupported, "values of this dtype cannot be read")
    {
        Rule = SafetensorsRules.KnownDtype,
        Tensor = tensor,
        Found = name,
        Expected = "a dtype with a decoder",
        Remedy = "Convert the tensor to F32, F16 or BF16 with the software that wrote it.",
    };

    public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values) => throw CannotDecode(null);

    private static long GreatestCommonDivisor(long a, long b)
    {
        while (b != 0) (a, b) = (b, a % b);
        return a;
    }
}
