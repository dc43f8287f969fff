using System.Buffers;
using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Formats.Packed;

/// <summary>Encodes and decodes rows of a grid at a vector width; every width gives the same bits.</summary>
internal static class GroupLanes
{
    /// <summary>Codes unpacked or packed at a time.</summary>
    private const int ChunkValues = 256;

    public static int BlockBytes<TGrid>(in TGrid grid) where TGrid : struct, IGroupGrid => grid.CodesOffset + (grid.GroupLength / BitFields.Run * grid.Bits);

    public static void Decode<TGrid>(SimdLevel level, in TGrid grid, ReadOnlySpan<byte> blocks, Span<float> values) where TGrid : struct, IGroupGrid
    {
        if (level >= SimdLevel.Avx512) Decode<TGrid, Lanes512>(in grid, blocks, values);
        else if (level >= SimdLevel.Avx2) Decode<TGrid, Lanes256>(in grid, blocks, values);
        else if (level >= SimdLevel.Vector128) Decode<TGrid, Lanes128>(in grid, blocks, values);
        else Decode<TGrid, Lanes1>(in grid, blocks, values);
    }

    public static void EncodeRow<TGrid>(SimdLevel level, in TGrid grid, ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) where TGrid : struct, IGroupGrid
    {
        if (level >= SimdLevel.Avx512) EncodeRow<TGrid, Lanes512>(in grid, row, importance, effort, blocks);
        else if (level >= SimdLevel.Avx2) EncodeRow<TGrid, Lanes256>(in grid, row, importance, effort, blocks);
        else if (level >= SimdLevel.Vector128) EncodeRow<TGrid, Lanes128>(in grid, row, importance, effort, blocks);
        else EncodeRow<TGrid, Lanes1>(in grid, row, importance, effort, blocks);
    }

    /// <summary>Fits one group.</summary>
    public static (float Scale, float Origin) Fit<TGrid>(SimdLevel level, in TGrid grid, ReadOnlySpan<float> group, ReadOnlySpan<float> importance, Effort effort) where TGrid : struct, IGroupGrid
    {
        Span<float> scales = stackalloc float[Search.Stride], origins = stackalloc float[Search.Stride];
        if (level >= SimdLevel.Avx512) Fit<TGrid, Lanes512>(in grid, group, importance, effort, scales, origins);
        else if (level >= SimdLevel.Avx2) Fit<TGrid, Lanes256>(in grid, group, importance, effort, scales, origins);
        else if (level >= SimdLevel.Vector128) Fit<TGrid, Lanes128>(in grid, group, importance, effort, scales, origins);
        else Fit<TGrid, Lanes1>(in grid, group, importance, effort, scales, origins);
        return (scales[0], origins[0]);
    }

    private static void Decode<TGrid, T>(in TGrid grid, ReadOnlySpan<byte> blocks, Span<float> values) where TGrid : struct, IGroupGrid where T : unmanaged, ILanes<T>
    {
        int length = grid.GroupLength, blockBytes = BlockBytes(in grid);
        Span<byte> codes = stackalloc byte[ChunkValues];
        for (int group = 0; group < values.Length / length; group++)
        {
            ReadOnlySpan<byte> block = blocks.Slice(group * blockBytes, blockBytes);
            (float scale, float origin) = grid.Read(block);
            for (int first = 0; first < length; first += ChunkValues)
            {
                int count = Math.Min(ChunkValues, length - first);
                BitFields.Unpack(block[(grid.CodesOffset + (first / BitFields.Run * grid.Bits))..], grid.Bits, codes[..count]);
                ToValues<TGrid, T>(in grid, codes, scale, origin, values.Slice((group * length) + first, count));
            }
        }
    }

    private static void EncodeRow<TGrid, T>(in TGrid grid, ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
        where TGrid : struct, IGroupGrid where T : unmanaged, ILanes<T>
    {
        Span<float> scales = stackalloc float[Search.Stride], origins = stackalloc float[Search.Stride];
        Span<byte> codes = stackalloc byte[ChunkValues];
        int length = grid.GroupLength, blockBytes = BlockBytes(in grid), groupCount = row.Length / length;
        for (int batch = 0; batch < groupCount; batch += Search.Stride)
        {
            int count = Math.Min(Search.Stride, groupCount - batch);
            ReadOnlySpan<float> weights = importance.IsEmpty ? importance : importance.Slice(batch * length, count * length);
            Fit<TGrid, T>(in grid, row.Slice(batch * length, count * length), weights, effort, scales, origins);
            for (int g = 0; g < count; g++)
            {
                ReadOnlySpan<float> values = row.Slice((batch + g) * length, length);
                Span<byte> block = blocks.Slice((batch + g) * blockBytes, blockBytes);
                grid.Write(scales[g], origins[g], block);
                (float scale, float origin) = grid.ForCodes(values, effort, scales[g], origins[g]);
                for (int first = 0; first < length; first += ChunkValues)
                {
                    int chunk = Math.Min(ChunkValues, length - first);
                    ToCodes<TGrid, T>(in grid, values.Slice(first, chunk), scale, origin, codes);
                    BitFields.Pack(codes[..chunk], grid.Bits, block[(grid.CodesOffset + (first / BitFields.Run * grid.Bits))..]);
                }
            }
        }
    }

    /// <summary>Fits at most <see cref="Search.Stride"/> groups, back to back.</summary>
    private static void Fit<TGrid, T>(in TGrid grid, ReadOnlySpan<float> groups, ReadOnlySpan<float> importance, Effort effort, Span<float> scales, Span<float> origins)
        where TGrid : struct, IGroupGrid where T : unmanaged, ILanes<T>
    {
        int length = Search.Stride * grid.GroupLength;
        float[] lanes = ArrayPool<float>.Shared.Rent(length), weights = ArrayPool<float>.Shared.Rent(length);
        Search.Transpose(groups, grid.GroupLength, lanes.AsSpan(0, length));
        if (importance.IsEmpty) weights.AsSpan(0, length).Fill(1);
        else Search.Transpose(importance, grid.GroupLength, weights.AsSpan(0, length));
        for (int g = 0; g < groups.Length / grid.GroupLength; g += T.Width) grid.Fit<T>(in lanes[g], in weights[g], !importance.IsEmpty, effort, ref scales[g], ref origins[g]);
        ArrayPool<float>.Shared.Return(lanes);
        ArrayPool<float>.Shared.Return(weights);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void ToValues<TGrid, T>(in TGrid grid, ReadOnlySpan<byte> codes, float scale, float origin, Span<float> values) where TGrid : struct, IGroupGrid where T : unmanaged, ILanes<T>
    {
        T step = T.Broadcast(scale), start = T.Broadcast(origin);
        for (int i = 0; i < values.Length; i += T.Width) T.Store(grid.Value(T.ToFloat(T.LoadBytes(in codes[i])), step, start), ref values[i]);
    }

    private static void ToCodes<TGrid, T>(in TGrid grid, ReadOnlySpan<float> values, float scale, float origin, Span<byte> codes) where TGrid : struct, IGroupGrid where T : unmanaged, ILanes<T>
    {
        T step = T.Broadcast(scale), start = T.Broadcast(origin);
        for (int i = 0; i < values.Length; i += T.Width) T.StoreBytes(T.ToInt(grid.Code(T.Load(in values[i]), step, start)), ref codes[i]);
    }
}
