using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Formats.Packed;

/// <summary>Rows of an integer grid as the forward pass multiplies them: code less zero under the group's scale, without origins.</summary>
internal sealed unsafe class IntegerGridIntegers(IntegerGridType type) : IntegerForm
{
    public override bool HasOrigins => false;

    public override void Unpack(byte* blocks, int valueCount, short* codes, float* scales, float* origins, int stride)
    {
        byte* fields = stackalloc byte[ScaleLength];
        Span<byte> run = new(fields, ScaleLength);
        int runBytes = ScaleLength / BitFields.Run * type.Bits;
        for (int first = 0; first < valueCount; first += type.GroupLength)
        {
            ReadOnlySpan<byte> block = new(blocks, type.BytesPerBlock);
            float scale = type.ScaleOf(block);
            Vector256<ushort> zeros = Vector256.Create((ushort)type.ZeroOf(block));
            for (int i = 0; i < type.GroupLength; i += ScaleLength)
            {
                BitFields.Unpack(block[(type.CodesOffset + (i / ScaleLength * runBytes))..], type.Bits, run);
                (Vector256<ushort> low, Vector256<ushort> high) = Vector256.Widen(Vector256.Load(fields));
                (low - zeros).AsInt16().Store(codes);
                (high - zeros).AsInt16().Store(codes + Vector256<short>.Count);
                *scales = scale;
                codes += ScaleLength;
                scales += stride;
            }

            blocks += type.BytesPerBlock;
        }
    }
}
