using System.Runtime.Intrinsics;
using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Formats.Packed;

/// <summary>Rows of a grid as the forward pass multiplies them: codes, less their zero where that is the origin, under the group's scale.</summary>
internal sealed unsafe class GroupIntegers<TGrid>(TGrid grid) : IntegerForm where TGrid : struct, IGroupGrid
{
    public override bool HasOrigins => TGrid.HasOrigins;

    public override void Unpack(byte* blocks, int valueCount, short* codes, float* scales, float* origins, int stride)
    {
        byte* fields = stackalloc byte[ScaleLength];
        Span<byte> run = new(fields, ScaleLength);
        int runBytes = ScaleLength / BitFields.Run * grid.Bits, blockBytes = GroupLanes.BlockBytes(in grid);
        for (int first = 0; first < valueCount; first += grid.GroupLength)
        {
            ReadOnlySpan<byte> block = new(blocks, blockBytes);
            (float scale, float origin) = grid.Read(block);
            Vector256<ushort> zeros = TGrid.HasOrigins ? default : Vector256.Create((ushort)origin);
            for (int i = 0; i < grid.GroupLength; i += ScaleLength)
            {
                BitFields.Unpack(block[(grid.CodesOffset + (i / ScaleLength * runBytes))..], grid.Bits, run);
                (Vector256<ushort> low, Vector256<ushort> high) = Vector256.Widen(Vector256.Load(fields));
                (low - zeros).AsInt16().Store(codes);
                (high - zeros).AsInt16().Store(codes + Vector256<short>.Count);
                *scales = scale;
                codes += ScaleLength;
                scales += stride;
                if (!TGrid.HasOrigins) continue;
                *origins = origin;
                origins += stride;
            }

            blocks += blockBytes;
        }
    }
}
