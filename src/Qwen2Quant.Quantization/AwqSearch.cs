using System.Numerics.Tensors;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Quantization;

/// <summary>A matrix whose inputs are to be scaled, or an even sample of its rows.</summary>
/// <param name="Rows">[rows, inputs].</param>
/// <param name="RowWeight">Rows of the matrix for each of the sample.</param>
public sealed record AwqConsumer(float[] Rows, double RowWeight, ElementType Type);

/// <summary>The scales that were found.</summary>
/// <param name="Scales">What inputs are divided by, and columns of weights multiplied.</param>
/// <param name="Ratio">Exponent of the activations.</param>
/// <param name="UsesWeights">Whether weights count too, by one less the ratio.</param>
/// <param name="LossBefore">Squared error of the consumers' outputs without scales.</param>
public sealed record AwqScales(float[] Scales, double Ratio, bool UsesWeights, double LossBefore, double LossAfter);

/// <summary>
/// Activation-aware scales (Lin et al. 2024): columns of weights whose inputs are large are multiplied by s before rounding, and their inputs divided by it. s is
/// <c>x^r</c> or <c>x^r / w^(1 - r)</c>, x the root of the mean square of a channel, w the mean share of its weights in the largest of their group; r comes from a grid.
/// The loss is that of the consumers' outputs on the calibration text, by way of the Gram matrix of their inputs: <c>trace d H d^T</c> with d the error of weights that
/// the type's own encoder made. So no activation is kept, and a candidate costs a product of the weights with H.
/// </summary>
/// <param name="input">What the consumers take.</param>
public sealed unsafe class AwqSearch(InputStatistics input, Effort effort, WorkerTeam team)
{
    private const int RowsPerTask = 16;

    /// <summary>Step of the coarse grid over r; the best of it is compared with its neighbours at half of it.</summary>
    private const double Step = 0.1;

    private const float LeastWeight = 1e-4f;

    /// <summary>The scales of channels, of which several inputs may share one.</summary>
    /// <param name="channels">The scale of each input; empty where each has its own.</param>
    public AwqScales Find(IReadOnlyList<AwqConsumer> consumers, ReadOnlySpan<int> channels)
    {
        int[] map = channels.IsEmpty ? [.. Enumerable.Range(0, input.Width)] : channels.ToArray();
        int scaleCount = map.Max() + 1;
        double[] activity = Mean(map, scaleCount, input.Power), weights = Mean(map, scaleCount, MeanShares(consumers));
        for (int i = 0; i < scaleCount; i++) activity[i] = Math.Sqrt(activity[i]);
        float[] none = new float[scaleCount];
        Array.Fill(none, 1);
        double before = Loss(consumers, map, none);
        AwqScales best = new(none, 0, false, before, before);
        // With r = 0 and no weights all scales are 1.
        for (double ratio = 0; ratio < 1 + (Step / 2); ratio += Step)
        {
            if (ratio > 0) Try(ratio, false);
            Try(ratio, true);
        }

        (double center, bool usesWeights) = (best.Ratio, best.UsesWeights);
        foreach (double ratio in new[] { center - (Step / 2), center + (Step / 2) })
        {
            if (ratio is > 0 and < 1) Try(ratio, usesWeights);
        }

        return best;

        void Try(double ratio, bool withWeights)
        {
            float[] scales = Candidate(activity, weights, ratio, withWeights);
            double loss = Loss(consumers, map, scales);
            if (loss < best.LossAfter) best = new AwqScales(scales, ratio, withWeights, before, loss);
        }
    }

    private static float[] Candidate(double[] activity, double[] weights, double ratio, bool withWeights)
    {
        double[] scales = new double[activity.Length];
        (double least, double most) = (double.MaxValue, 0);
        for (int i = 0; i < scales.Length; i++)
        {
            // A channel that is never active keeps its scale.
            if (activity[i] == 0) continue;
            scales[i] = Math.Pow(activity[i], ratio) / (withWeights ? Math.Pow(weights[i], 1 - ratio) + LeastWeight : 1);
            (least, most) = (Math.Min(least, scales[i]), Math.Max(most, scales[i]));
        }

        double middle = Math.Sqrt(least * most);
        return [.. scales.Select(scale => scale / middle).Select(scale => scale > 0 && double.IsFinite(scale) ? (float)scale : 1)];
    }

    /// <summary>The mean of what inputs that share a scale have.</summary>
    private static double[] Mean(int[] map, int scaleCount, ReadOnlySpan<double> values)
    {
        double[] sums = new double[scaleCount];
        int[] counts = new int[scaleCount];
        for (int i = 0; i < map.Length; i++)
        {
            sums[map[i]] += values[i];
            counts[map[i]]++;
        }

        for (int i = 0; i < scaleCount; i++) sums[i] /= counts[i];
        return sums;
    }

    /// <summary>For each input the mean over all rows of its weight's magnitude in the largest of its group.</summary>
    private double[] MeanShares(IReadOnlyList<AwqConsumer> consumers)
    {
        double[] sums = new double[input.Width];
        double rowCount = 0;
        foreach (AwqConsumer consumer in consumers)
        {
            int group = ((IBlockCodec)consumer.Type).Shape.SubBlockLength;
            for (int start = 0; start < consumer.Rows.Length; start += group)
            {
                ReadOnlySpan<float> values = consumer.Rows.AsSpan(start, group);
                float largest = MathF.Abs(TensorPrimitives.MaxMagnitude(values)) + 1e-6f;
                int column = start % sums.Length;
                for (int i = 0; i < group; i++) sums[column + i] += consumer.RowWeight * (MathF.Abs(values[i]) / largest);
            }

            rowCount += consumer.RowWeight * (consumer.Rows.Length / sums.Length);
        }

        for (int i = 0; i < sums.Length; i++) sums[i] /= rowCount;
        return sums;
    }

    private double Loss(IReadOnlyList<AwqConsumer> consumers, int[] map, float[] scales)
    {
        float[] columns = [.. map.Select(channel => scales[channel])], importance = new float[columns.Length];
        for (int i = 0; i < columns.Length; i++) importance[i] = (float)(input.Power[i] / input.Scale / ((double)columns[i] * columns[i]));
        return consumers.Sum(consumer => Loss(consumer, columns, importance));
    }

    private double Loss(AwqConsumer consumer, float[] columns, float[] importance)
    {
        int width = columns.Length, rowCount = consumer.Rows.Length / width;
        using NativeFloats errors = new(), products = new();
        float* d = errors.Get((long)rowCount * width), hd = products.Get((long)rowCount * width);
        int taskCount = (rowCount + RowsPerTask - 1) / RowsPerTask;
        team.Run(taskCount, task =>
        {
            byte[] blocks = new byte[consumer.Type.ByteCount(width)];
            float[] scaled = new float[width];
            for (int row = task * RowsPerTask; row < Math.Min(rowCount, (task + 1) * RowsPerTask); row++)
            {
                ReadOnlySpan<float> weights = consumer.Rows.AsSpan(row * width, width);
                Span<float> error = new(d + ((long)row * width), width);
                TensorPrimitives.Multiply(weights, columns, scaled);
                consumer.Type.EncodeRow(scaled, importance, effort, blocks);
                consumer.Type.Decode(blocks, error);
                TensorPrimitives.Divide(error, columns, error);
                TensorPrimitives.Subtract(error, weights, error);
            }
        });
        MatrixProduct.Multiply(d, rowCount, input.Panels, hd, width, team);
        double[] sums = new double[rowCount];
        team.Run(taskCount, task =>
        {
            for (int row = task * RowsPerTask; row < Math.Min(rowCount, (task + 1) * RowsPerTask); row++)
            {
                sums[row] = TensorPrimitives.Dot(new ReadOnlySpan<float>(d + ((long)row * width), width), new ReadOnlySpan<float>(hd + ((long)row * width), width));
            }
        });
        return sums.Sum() * consumer.RowWeight * input.Scale;
    }
}
