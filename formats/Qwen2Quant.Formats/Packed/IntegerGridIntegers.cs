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
            (float scale, int zero) = (type.ScaleOf(block), type.ZeroOf(block));
            for (int i = 0; i < type.GroupLength; i += ScaleLength)
            {
                BitFields.Unpack(block[(type.CodesOffset + (i / ScaleLength * runBytes))..], type.Bits, run);
                for (int j = 0; j < ScaleLength; j++) codes[j] = (short)(fields[j] - zero);
                *scales = scale;
                codes += ScaleLength;
                scales += stride;
            }

            blocks += type.BytesPerBlock;
        }
    }
}
