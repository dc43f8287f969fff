using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Quantization;

/// <summary>The Gram matrix H of a linear's inputs as a right operand, to weigh differences of weights: <c>d H d^T</c>.</summary>
public sealed class InputStatistics
{
    /// <summary>Rows of H that are brought into panels at a time.</summary>
    private const int RowsPerTask = 32;

    public InputStatistics(GramMatrix gram, WorkerTeam team)
    {
        int width = gram.Width;
        Power = new double[width];
        for (int i = 0; i < width; i++) Power[i] = gram[i, i];
        double mean = Power.Average();
        Scale = mean > 0 ? mean : 1;
        Panels = new MatrixProductPanels(width, width);
        team.Run((width + RowsPerTask - 1) / RowsPerTask, task =>
        {
            int first = task * RowsPerTask, count = Math.Min(RowsPerTask, width - first);
            float[] rows = new float[count * width];
            for (int row = first; row < first + count; row++)
            {
                Span<float> target = rows.AsSpan((row - first) * width, width);
                gram.CopyRow(row, Scale, target);
                for (int column = row + 1; column < width; column++) target[column] = (float)(gram[row, column] / Scale);
            }

            Panels.Pack(rows, first);
        });
    }

    public int Width => Power.Length;

    /// <summary>H's diagonal: sums of squares of each channel.</summary>
    public double[] Power { get; }

    /// <summary>Mean of the diagonal, 1 where that is zero; <see cref="Panels"/> are in its units.</summary>
    public double Scale { get; }

    public MatrixProductPanels Panels { get; }

    /// <summary>Bytes that one takes.</summary>
    public static long ByteCount(int width) => MatrixProductPanels.FloatCount(width, width) * sizeof(float);
}
