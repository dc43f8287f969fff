using System.Buffers;
using System.Numerics.Tensors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Model;

/// <summary>
/// Causal grouped-query attention with an online softmax (Milakov and Gimelshein, 2018; Dao et al., 2022) over tiles of keys that begin at
/// multiples of <see cref="MatrixProduct.DepthBlock"/>: a token's result does not depend on which others are computed with it.
/// </summary>
internal sealed unsafe class Attention(Qwen2Config config, RopeTable rope, WorkerTeam team)
{
    private const int KeyTile = MatrixProduct.DepthBlock;

    // Rows (tokens times heads that share a key head) of one task: with their scores about 200 KiB.
    private const int RowsPerTask = 96;

    private const int TokensPerRotation = MatrixProduct.PanelWidth;

    private readonly int _group = config.NumAttentionHeads / config.NumKeyValueHeads;
    private readonly int _headDim = config.HeadDim;
    private readonly int _rowWidth = config.QueryWidth + (2 * config.KeyValueWidth);

    /// <summary>Adds the biases, turns queries and keys, and appends keys and values to the cache (whose length the caller advances).</summary>
    /// <param name="qkv">[tokenCount, q | k | v]; queries are left turned and scaled by 1 / sqrt(head width).</param>
    public void Append(int layer, KvCache cache, float* qkv, float[] bias, int tokenCount)
    {
        int firstPosition = cache.Length;
        RopeTable.Rows angles = rope.For(firstPosition + tokenCount);
        float scale = (float)(1 / Math.Sqrt(_headDim));
        team.Run((tokenCount + TokensPerRotation - 1) / TokensPerRotation, task =>
        {
            fixed (float* cosines = angles.Cosines, sines = angles.Sines)
            {
                int end = Math.Min(tokenCount, (task + 1) * TokensPerRotation);
                for (int token = task * TokensPerRotation; token < end; token++)
                {
                    int position = firstPosition + token;
                    float* row = qkv + ((long)token * _rowWidth);
                    Span<float> values = new(row, _rowWidth);
                    if (bias.Length > 0) TensorPrimitives.Add(values, bias, values);
                    int half = _headDim / 2;
                    long angle = (long)position * half;
                    for (int head = 0; head < config.NumAttentionHeads + config.NumKeyValueHeads; head++)
                    {
                        RowKernels.Rotate(row + (head * _headDim), cosines + angle, sines + angle, half);
                    }

                    Span<float> query = values[..config.QueryWidth];
                    TensorPrimitives.Multiply(query, scale, query);
                    Store(cache, layer, position, row + config.QueryWidth);
                }
            }
        });
    }

    /// <summary>Softmax(Q K^T) V for tokens that <see cref="Append"/> has stored.</summary>
    /// <param name="firstPosition">Position of the first of them.</param>
    /// <param name="window">Tokens that each sees, its own included; null for all before it.</param>
    /// <param name="result">[tokenCount, heads x head width].</param>
    public void Attend(int layer, KvCache cache, float* qkv, int firstPosition, int tokenCount, int? window, float* result)
    {
        int tokensPerTask = Math.Max(RowsPerTask / _group, 1);
        int blockCount = (tokenCount + tokensPerTask - 1) / tokensPerTask;
        team.Run(blockCount * config.NumKeyValueHeads, task =>
        {
            // Later tokens see more keys: they go first, so that the last tasks to end are short.
            int block = blockCount - 1 - (task / config.NumKeyValueHeads);
            int firstToken = block * tokensPerTask;
            int tokens = Math.Min(tokensPerTask, tokenCount - firstToken);
            AttendBlock(layer, cache, task % config.NumKeyValueHeads, qkv + ((long)firstToken * _rowWidth), firstPosition + firstToken, tokens, window, result + ((long)firstToken * config.QueryWidth));
        });
    }

    private void Store(KvCache cache, int layer, int position, float* keys)
    {
        const int Width = MatrixProduct.PanelWidth;
        float* values = keys + config.KeyValueWidth;
        for (int head = 0; head < config.NumKeyValueHeads; head++)
        {
            float* keyColumn = cache.Keys(layer) + (head * cache.KeyStride) + ((long)(position / Width) * Width * _headDim) + (position % Width);
            for (int i = 0; i < _headDim; i++) keyColumn[(long)i * Width] = keys[(head * _headDim) + i];

            float* valueRow = cache.Values(layer) + (head * cache.ValueStride) + ((long)position * Width);
            for (int i = 0; i < _headDim; i += Width)
            {
                new ReadOnlySpan<float>(values + (head * _headDim) + i, Math.Min(Width, _headDim - i)).CopyTo(new Span<float>(valueRow, Width));
                valueRow += cache.ValuePanelStride;
            }
        }
    }

    private void AttendBlock(int layer, KvCache cache, int keyHead, float* qkv, int firstPosition, int tokenCount, int? window, float* result)
    {
        int rowCount = tokenCount * _group;
        float[] buffer = ArrayPool<float>.Shared.Rent(rowCount * ((2 * _headDim) + KeyTile + 2));
        fixed (float* queries = buffer)
        {
            float* sums = queries + (rowCount * _headDim);
            float* scores = sums + (rowCount * _headDim);
            float* maxima = scores + (rowCount * KeyTile);
            float* weights = maxima + rowCount;
            new Span<float>(sums, rowCount * _headDim).Clear();
            new Span<float>(maxima, rowCount).Fill(float.NegativeInfinity);
            new Span<float>(weights, rowCount).Clear();
            for (int row = 0; row < rowCount; row++)
            {
                float* query = qkv + ((long)(row / _group) * _rowWidth) + (((keyHead * _group) + (row % _group)) * _headDim);
                new ReadOnlySpan<float>(query, _headDim).CopyTo(new Span<float>(queries + (row * _headDim), _headDim));
            }

            int end = firstPosition + tokenCount;
            int begin = FirstVisible(firstPosition, window) / KeyTile * KeyTile;
            for (int tile = begin; tile < end; tile += KeyTile)
            {
                int keyCount = Math.Min(KeyTile, end - tile);
                float* keys = cache.Keys(layer) + (keyHead * cache.KeyStride) + ((long)tile * _headDim);
                MatrixProduct.MultiplyPanels(queries, _headDim, rowCount, _headDim, keys, MatrixProduct.PanelWidth * _headDim, keyCount, scores, KeyTile, false);
                for (int row = 0; row < rowCount; row++)
                {
                    int position = firstPosition + (row / _group);
                    int low = Math.Clamp(FirstVisible(position, window) - tile, 0, keyCount);
                    int high = Math.Clamp(position + 1 - tile, low, keyCount);
                    Soften(scores + (row * KeyTile), keyCount, low, high, ref maxima[row], ref weights[row], new Span<float>(sums + (row * _headDim), _headDim));
                }

                float* values = cache.Values(layer) + (keyHead * cache.ValueStride) + ((long)tile * MatrixProduct.PanelWidth);
                MatrixProduct.MultiplyPanels(scores, KeyTile, rowCount, keyCount, values, cache.ValuePanelStride, _headDim, sums, _headDim, true);
            }

            for (int row = 0; row < rowCount; row++)
            {
                float* target = result + ((long)(row / _group) * config.QueryWidth) + (((keyHead * _group) + (row % _group)) * _headDim);
                TensorPrimitives.Multiply(new ReadOnlySpan<float>(sums + (row * _headDim), _headDim), 1 / weights[row], new Span<float>(target, _headDim));
            }
        }

        ArrayPool<float>.Shared.Return(buffer);
    }

    private static int FirstVisible(int position, int? window) => window is { } length ? Math.Max(position - length + 1, 0) : 0;

    // Scores of keys low to high become exponentials, the others zero; what was summed before is brought to the new maximum.
    private static void Soften(float* scores, int keyCount, int low, int high, ref float maximum, ref float weight, Span<float> sums)
    {
        new Span<float>(scores, low).Clear();
        new Span<float>(scores + high, keyCount - high).Clear();
        if (low == high) return;
        float highest = MathF.Max(maximum, TensorPrimitives.Max(new ReadOnlySpan<float>(scores + low, high - low)));
        float kept = maximum == highest ? 1 : MathF.Exp(maximum - highest);
        weight = (weight * kept) + RowKernels.ExpAndSum(scores + low, high - low, highest);
        if (kept != 1) TensorPrimitives.Multiply(sums, kept, sums);
        maximum = highest;
    }
}
