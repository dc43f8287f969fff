using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Formats.Packed.Mlx;

/// <summary>Rows of an affine grid as the forward pass multiplies them: codes under the group's scale, its bias as origin.</summary>
internal sealed unsafe class AffineGridIntegers(AffineGridType type) : IntegerForm
{
    public override bool HasOrigins => true;

    public override void Unpack(byte* blocks, int valueCount, short* codes, float* scales, float* origins, int stride)
    {
        byte* fields = stackalloc byte[ScaleLength];
        Span<byte> run = new(fields, ScaleLength);
        int runBytes = ScaleLength / BitFields.Run * type.Bits;
        for (int first = 0; first < valueCount; first += type.GroupLength)
        {
            ReadOnlySpan<byte> block = new(blocks, type.BytesPerBlock);
            (float scale, float bias) = (type.ScaleOf(block), type.BiasOf(block));
            for (int i = 0; i < type.GroupLength; i += ScaleLength)
            {
                BitFields.Unpack(block[(AffineGridType.CodesOffset + (i / ScaleLength * runBytes))..], type.Bits, run);
                (Vector256<ushort> low, Vector256<ushort> high) = Vector256.Widen(Vector256.Load(fields));
                low.AsInt16().Store(codes);
                high.AsInt16().Store(codes + Vector256<short>.Count);
                (*scales, *origins) = (scale, bias);
                codes += ScaleLength;
                scales += stride;
                origins += stride;
            }

            blocks += type.BytesPerBlock;
        }
    }
}
