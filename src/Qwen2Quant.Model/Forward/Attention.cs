using System.Buffers;
using System.Numerics.Tensors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Model;

/// <summary>
/// Causal grouped-query attention with an online softmax (Milakov and Gimelshein, 2018; Dao et al., 2022) over tiles of keys that begin at
/// multiples of <see cref="MatrixProduct.DepthBlock"/>: a token's result does not depend on which others are computed with it.
/// Keys are kept turned by their positions; queries are turned as they are used, for each kind of <see cref="PositionScheme"/> anew.
/// </summary>
internal sealed unsafe class Attention(Qwen2Config config, RopeTable rope, WorkerTeam team)
{
    private const int KeyTile = MatrixProduct.DepthBlock;

    // Rows (tokens times heads that share a key head) of one task, about: with their scores 400 KiB, within a second-level cache.
    private const int RowsPerTask = 192;

    // Tokens of one task are a multiple of it, so that rows fill the tiles of the product (12 rows) whatever the group.
    private const int TokenUnit = 12;

    private const int TokensPerRotation = MatrixProduct.PanelWidth;

    private readonly int _group = config.NumAttentionHeads / config.NumKeyValueHeads;
    private readonly int _headDim = config.HeadDim;
    private readonly int _rowWidth = config.QueryWidth + (2 * config.KeyValueWidth);

    /// <summary>Adds the biases, turns the keys, and appends keys and values to the cache (whose length the caller advances).</summary>
    /// <param name="qkv">[tokenCount, q | k | v]; queries are left as they are.</param>
    public void Append(int layer, KvCache cache, float* qkv, float[] bias, int tokenCount)
    {
        int firstToken = cache.Length;
        RopeAngles angles = rope.For(firstToken, tokenCount, cache.TextLength);
        KvCache.Layer storage = cache.Open(layer);
        int half = _headDim / 2;
        team.Run((tokenCount + TokensPerRotation - 1) / TokensPerRotation, task =>
        {
            fixed (float* cosines = angles.Keys.Cosines, sines = angles.Keys.Sines)
            {
                int end = Math.Min(tokenCount, (task + 1) * TokensPerRotation);
                for (int row = task * TokensPerRotation; row < end; row++)
                {
                    float* qkvRow = qkv + ((long)row * _rowWidth);
                    Span<float> values = new(qkvRow, _rowWidth);
                    if (bias.Length > 0) TensorPrimitives.Add(values, bias, values);
                    float* keys = qkvRow + config.QueryWidth;
                    int angle = angles.Offset(firstToken + row);
                    for (int head = 0; head < config.NumKeyValueHeads; head++) RowKernels.Rotate(keys + (head * _headDim), cosines + angle, sines + angle, half);
                    Store(cache, storage, firstToken + row, keys);
                }
            }
        });
    }

    /// <summary>Softmax(Q K^T) V for tokens that <see cref="Append"/> has stored.</summary>
    /// <param name="firstToken">Place in the text of the first of them.</param>
    /// <param name="window">Tokens that each sees, its own included; null for all before it.</param>
    /// <param name="result">[tokenCount, heads x head width].</param>
    public void Attend(int layer, KvCache cache, float* qkv, int firstToken, int tokenCount, int? window, float* result)
    {
        RopeAngles angles = rope.For(firstToken, tokenCount, cache.TextLength);
        KvCache.Layer storage = cache.Open(layer);
        int tokensPerTask = Math.Max(RowsPerTask / _group / TokenUnit, 1) * TokenUnit;
        int blockCount = (tokenCount + tokensPerTask - 1) / tokensPerTask;
        team.Run(blockCount * config.NumKeyValueHeads, task =>
        {
            // Later tokens see more keys: they go first, so that the last tasks to end are short.
            int firstRow = (blockCount - 1 - (task / config.NumKeyValueHeads)) * tokensPerTask;
            Block block = new(task % config.NumKeyValueHeads, firstToken + firstRow, Math.Min(tokensPerTask, tokenCount - firstRow), window);
            AttendBlock(block, cache, storage, angles, qkv + ((long)firstRow * _rowWidth), result + ((long)firstRow * config.QueryWidth));
        });
        GC.KeepAlive(cache);
    }

    private void Store(KvCache cache, KvCache.Layer storage, int position, float* keys)
    {
        const int Width = MatrixProduct.PanelWidth;
        float* values = keys + config.KeyValueWidth;
        for (int head = 0; head < config.NumKeyValueHeads; head++)
        {
            float* keyColumn = storage.Keys + (head * cache.KeyStride) + ((long)(position / Width) * Width * _headDim) + (position % Width);
            for (int i = 0; i < _headDim; i++) keyColumn[(long)i * Width] = keys[(head * _headDim) + i];

            float* valueRow = storage.Values + (head * cache.ValueStride) + ((long)position * Width);
            for (int i = 0; i < _headDim; i += Width)
            {
                new ReadOnlySpan<float>(values + (head * _headDim) + i, Math.Min(Width, _headDim - i)).CopyTo(new Span<float>(valueRow, Width));
                valueRow += cache.ValuePanelStride;
            }
        }
    }

    private void AttendBlock(in Block block, KvCache cache, KvCache.Layer storage, RopeAngles angles, float* qkv, float* result)
    {
        int rowCount = block.TokenCount * _group;
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
            for (int kind = 0; kind < rope.Positions.KindCount; kind++)
            {
                // Both ends of what a token sees grow with the token.
                int low = Visible(block, kind, block.FirstToken).Low;
                int high = Visible(block, kind, block.FirstToken + block.TokenCount - 1).High;
                if (low >= high) continue;
                TurnQueries(block, angles, kind, qkv, queries);
                for (int tile = low / KeyTile * KeyTile; tile < high; tile += KeyTile)
                {
                    int keyCount = Math.Min(KeyTile, high - tile);
                    float* keys = storage.Keys + (block.KeyHead * cache.KeyStride) + ((long)tile * _headDim);
                    MatrixProductFewRows.MultiplyPanels(queries, _headDim, rowCount, _headDim, keys, MatrixProduct.PanelWidth * _headDim, keyCount, scores, KeyTile, false);
                    for (int row = 0; row < rowCount; row++)
                    {
                        (int first, int end) = Visible(block, kind, block.FirstToken + (row / _group));
                        first = Math.Clamp(first - tile, 0, keyCount);
                        end = Math.Clamp(end - tile, first, keyCount);
                        Soften(scores + (row * KeyTile), keyCount, first, end, ref maxima[row], ref weights[row], new Span<float>(sums + (row * _headDim), _headDim));
                    }

                    float* values = storage.Values + (block.KeyHead * cache.ValueStride) + ((long)tile * MatrixProduct.PanelWidth);
                    MatrixProductFewRows.MultiplyPanels(scores, KeyTile, rowCount, keyCount, values, cache.ValuePanelStride, _headDim, sums, _headDim, true);
                }
            }

            for (int row = 0; row < rowCount; row++)
            {
                float* target = result + ((long)(row / _group) * config.QueryWidth) + (((block.KeyHead * _group) + (row % _group)) * _headDim);
                TensorPrimitives.Multiply(new ReadOnlySpan<float>(sums + (row * _headDim), _headDim), 1 / weights[row], new Span<float>(target, _headDim));
            }
        }

        ArrayPool<float>.Shared.Return(buffer);
    }

    // The block's queries, turned by their positions of one kind and scaled by 1 / sqrt(head width): [tokens x group, head width].
    private void TurnQueries(in Block block, RopeAngles angles, int kind, float* qkv, float* queries)
    {
        fixed (float* cosines = angles.Queries[kind].Cosines, sines = angles.Queries[kind].Sines)
        {
            for (int row = 0; row < block.TokenCount * _group; row++)
            {
                int token = block.FirstToken + (row / _group);
                float* source = qkv + ((long)(row / _group) * _rowWidth) + (((block.KeyHead * _group) + (row % _group)) * _headDim);
                float* query = queries + (row * _headDim);
                float scale = (float)(rope.Positions.ScoreFactor(token) / Math.Sqrt(_headDim));
                TensorPrimitives.Multiply(new ReadOnlySpan<float>(source, _headDim), scale, new Span<float>(query, _headDim));
                RowKernels.Rotate(query, cosines + angles.Offset(token), sines + angles.Offset(token), _headDim / 2);
            }
        }
    }

    private (int Low, int High) Visible(in Block block, int kind, int token)
    {
        (int low, int high) = rope.Positions.Keys(kind, token);
        return block.Window is { } window ? (Math.Max(low, token - window + 1), high) : (low, high);
    }

    // Scores of keys first to end become exponentials, the others zero; what was summed before is brought to the new maximum.
    private static void Soften(float* scores, int keyCount, int first, int end, ref float maximum, ref float weight, Span<float> sums)
    {
        new Span<float>(scores, first).Clear();
        new Span<float>(scores + end, keyCount - end).Clear();
        if (first == end) return;
        float highest = MathF.Max(maximum, RowKernels.Max(scores + first, end - first));
        float kept = maximum == highest ? 1 : MathF.Exp(maximum - highest);
        weight = (weight * kept) + RowKernels.ExpAndSum(scores + first, end - first, highest);
        if (kept != 1) TensorPrimitives.Multiply(sums, kept, sums);
        maximum = highest;
    }

    /// <summary>Consecutive tokens of one task, and the key head whose queries it computes.</summary>
    private readonly record struct Block(int KeyHead, int FirstToken, int TokenCount, int? Window);
}
