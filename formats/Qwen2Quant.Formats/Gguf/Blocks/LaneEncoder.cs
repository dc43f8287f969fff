using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>The encoder of a few blocks together, written once over lanes of any width.</summary>
internal interface ILaneEncoder : ILaneDecoder
{
    /// <summary>Blocks encoded together.</summary>
    static abstract int BatchBlocks { get; }

    /// <summary>Encodes <paramref name="blockCount"/> blocks, at most <see cref="BatchBlocks"/>. <paramref name="importance"/> is empty or one weight for each value.</summary>
    /// <param name="rowVariance">Mean square of the whole row, 0 without importance.</param>
    static abstract void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, int blockCount, ref byte blocks)
        where T : unmanaged, ILanes<T>;
}

/// <summary>A block type whose reference encoder runs at the chosen vector width.</summary>
internal abstract class LaneCodecType<TSelf> : LaneBlockType<TSelf> where TSelf : LaneCodecType<TSelf>, ILaneEncoder
{
    public sealed override bool CanEncode => true;

    private protected sealed override void EncodeBlocks(SimdLevel level, ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Span<byte> blocks)
    {
        if (level >= SimdLevel.Avx512) EncodeBlocks<Lanes512>(row, importance, blocks);
        else if (level >= SimdLevel.Avx2) EncodeBlocks<Lanes256>(row, importance, blocks);
        else if (level >= SimdLevel.Vector128) EncodeBlocks<Lanes128>(row, importance, blocks);
        else EncodeBlocks<Lanes1>(row, importance, blocks);
    }

    private static void EncodeBlocks<T>(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Span<byte> blocks) where T : unmanaged, ILanes<T>
    {
        float rowVariance = importance.IsEmpty ? 0 : MeanSquare(row);
        int blockCount = row.Length / TSelf.BlockValues;
        for (int n = 0; n < blockCount; n += TSelf.BatchBlocks)
        {
            int count = Math.Min(TSelf.BatchBlocks, blockCount - n);
            Range values = new(n * TSelf.BlockValues, (n + count) * TSelf.BlockValues);
            ref byte to = ref Unsafe.Add(ref MemoryMarshal.GetReference(blocks), n * TSelf.BlockBytes);
            TSelf.EncodeBatch<T>(row[values], importance.IsEmpty ? importance : importance[values], rowVariance, count, ref to);
        }
    }

    // One sum in index order, as ggml's: it decides the last bit of every weight.
    private static float MeanSquare(ReadOnlySpan<float> row)
    {
        float sum = 0;
        foreach (float value in row) sum += value * value;
        return sum / row.Length;
    }
}
