using System.Numerics.Tensors;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Quantization;

/// <summary>
/// Rounding that may cut off the largest weights of a block (AutoAWQ's clip search): the block is encoded as it is and with its values clamped to shares of the largest
/// magnitude, and the encoding whose part of the outputs errs least stays, <c>d H d^T</c> with H of the block's inputs only.
/// </summary>
/// <param name="gram">Of the linear's inputs.</param>
public sealed class ClipSearch(GramMatrix gram, WorkerTeam team)
{
    /// <summary>Blocks beyond this length have one clamping for too many values, and too large an H.</summary>
    private const int LongestBlock = 256;

    private const int RowsPerTask = 16;

    // AutoAWQ's grid: down to 0.55 of the largest magnitude.
    private const int Steps = 10;
    private const float Step = 0.05f;

    private readonly float[] _importance = Importance(gram);
    private readonly Dictionary<int, float[]> _blocks = [];

    /// <summary>One weight for each column: H's diagonal over its mean; empty when no channel was ever active.</summary>
    public ReadOnlySpan<float> ColumnImportance => _importance;

    /// <summary>Encodes rows.</summary>
    /// <param name="clips">False only rounds, with H's diagonal as importance.</param>
    public void Encode(RowSlab slab, ElementType type, Effort effort, bool clips, Span<byte> encoded)
    {
        int width = slab.RowLength, rowCount = slab.RowCount, rowBytes = checked((int)type.ByteCount(width)), block = type.ValuesPerBlock;
        // Scales that rows share are not searched row by row.
        bool searches = clips && _importance.Length > 0 && block <= LongestBlock && type.RowsPerBlock == 1;
        int rowsPerTask = Math.Max(RowsPerTask / type.RowsPerBlock, 1) * type.RowsPerBlock;
        float[] h = searches ? Blocks(block) : [];
        (string tensor, long firstRow) = (slab.Tensor, slab.FirstRow);
        // Closures do not take spans.
        float[] values = slab.Values.ToArray();
        byte[] bytes = new byte[encoded.Length];
        team.Run((rowCount + rowsPerTask - 1) / rowsPerTask, task =>
        {
            int first = task * rowsPerTask, count = Math.Min(rowsPerTask, rowCount - first);
            Span<byte> own = bytes.AsSpan(first * rowBytes, count * rowBytes);
            ReadOnlySpan<float> rows = values.AsSpan(first * width, count * width);
            SolverCatalog.RoundToNearest.Encode(new RowSlab(tensor, firstRow + first, width, rows, _importance), type, effort, own);
            if (!searches) return;
            float[] clamped = new float[width], decoded = new float[width], product = new float[block];
            double[] best = new double[width / block];
            byte[] candidate = new byte[rowBytes];
            for (int row = 0; row < count; row++)
            {
                ReadOnlySpan<float> weights = rows.Slice(row * width, width);
                Span<byte> kept = own.Slice(row * rowBytes, rowBytes);
                for (int step = 0; step < Steps; step++)
                {
                    if (step > 0)
                    {
                        for (int start = 0; start < width; start += block)
                        {
                            float most = MathF.Abs(TensorPrimitives.MaxMagnitude(weights.Slice(start, block))) * (1 - (step * Step));
                            TensorPrimitives.Min(weights.Slice(start, block), most, clamped.AsSpan(start, block));
                            TensorPrimitives.Max(clamped.AsSpan(start, block), -most, clamped.AsSpan(start, block));
                        }

                        type.EncodeRow(clamped, _importance, effort, candidate);
                    }

                    type.Decode(step == 0 ? kept : candidate, decoded);
                    TensorPrimitives.Subtract(decoded, weights, decoded);
                    for (int b = 0; b < best.Length; b++)
                    {
                        double error = Error(decoded.AsSpan(b * block, block), h.AsSpan(b * block * block, block * block), product);
                        if (step == 0 || error < best[b])
                        {
                            best[b] = error;
                            if (step > 0) candidate.AsSpan(b * type.BytesPerBlock, type.BytesPerBlock).CopyTo(kept[(b * type.BytesPerBlock)..]);
                        }
                    }
                }
            }
        });
        bytes.CopyTo(encoded);
    }

    private static double Error(ReadOnlySpan<float> d, ReadOnlySpan<float> h, Span<float> product)
    {
        product.Clear();
        for (int i = 0; i < d.Length; i++) TensorPrimitives.MultiplyAdd(h.Slice(i * d.Length, d.Length), d[i], product, product);
        return TensorPrimitives.Dot(product, d);
    }

    private static float[] Importance(GramMatrix gram)
    {
        double[] power = new double[gram.Width];
        for (int i = 0; i < power.Length; i++) power[i] = gram[i, i];
        double mean = power.Average();
        return mean > 0 ? [.. power.Select(value => (float)(value / mean))] : [];
    }

    /// <summary>The squares of H along its diagonal, one for each block of inputs.</summary>
    private float[] Blocks(int length)
    {
        if (_blocks.TryGetValue(length, out float[]? known)) return known;
        double mean = Enumerable.Range(0, gram.Width).Average(i => gram[i, i]);
        float[] h = new float[gram.Width * length];
        for (int start = 0; start < gram.Width; start += length)
        {
            for (int i = 0; i < length; i++)
            {
                for (int j = 0; j < length; j++) h[(start * length) + (i * length) + j] = (float)(gram[start + i, start + j] / mean);
            }
        }

        _blocks.Add(length, h);
        return h;
    }
}
