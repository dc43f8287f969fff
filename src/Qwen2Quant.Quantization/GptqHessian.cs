using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Quantization;

/// <summary>
/// A Gram matrix made ready for <see cref="GptqSolver"/>: ordered, damped and factored, kept as the panels of blocks of <see cref="BlockSize"/> columns.
/// Linears that share their input and their granule share it. Takes 6 bytes for each pair (i, j) of channels, 10 while it is made.
/// </summary>
public sealed unsafe class GptqHessian
{
    internal const int BlockSize = 128;

    private const int Attempts = 8;

    private readonly int[] _order;
    private readonly float[] _added;

    /// <param name="tensor">Name for errors.</param>
    /// <param name="granuleLength">Columns that are chosen together: 1 for scalar grids; divides the width.</param>
    /// <exception cref="QuantException">The sums are not finite, or stay indefinite at any damping.</exception>
    public GptqHessian(string tensor, GramMatrix gram, int granuleLength, GptqOptions options, WorkerTeam team)
    {
        Width = gram.Width;
        GranuleLength = granuleLength;
        Options = options;
        if (Width % granuleLength != 0) throw new ArgumentException($"granules of {granuleLength} in {Width} columns", nameof(granuleLength));
        double[] diagonal = new double[Width];
        for (int i = 0; i < Width; i++) diagonal[i] = Diagonal(tensor, gram, i);
        double mean = diagonal.Average();
        // Scaled to a mean of 1: the factor and the error's units are those of single precision whatever the activations are.
        Scale = mean > 0 ? mean : 1;
        Importance = mean > 0 ? [.. diagonal.Select(value => (float)(value / Scale))] : [];
        _added = new float[Width];
        _order = Order(diagonal, granuleLength, options.ActivationOrder);

        float[] matrix = new float[(long)Width * Width];
        double damping = mean > 0 ? options.Damping : 1;
        for (int attempt = 0; ; attempt++)
        {
            for (int i = 0; i < Width; i++) _added[i] = (float)(damping + (options.Shrinkage * diagonal[i] / Scale));
            Fill(matrix, gram, team);
            CheckFinite(tensor, matrix);
            if (Cholesky.TryFactor(matrix, Width, team)) break;
            if (attempt == Attempts) throw new QuantException(ErrorKind.Numeric, "the Gram matrix of a linear's inputs is not positive definite") { Rule = StatisticsRules.Usable, Tensor = tensor };
            damping = Math.Max(damping * 10, 1e-6);
        }

        Damping = damping;
        Factor = Panels(team, (block, end) => end, (row, column) => column >= row ? matrix[((long)row * Width) + column] : 0);
        matrix = [];
        Gram = Panels(team, (_, _) => Width, (row, column) => (float)(gram[row, column] / Scale));
    }

    /// <summary>Bytes that one takes while it is made.</summary>
    public static long ByteCount(int width) => checked(10L * width * width);

    public int Width { get; }
    public int GranuleLength { get; }
    public GptqOptions Options { get; }

    /// <summary>The damping that was needed, as a share of the mean diagonal.</summary>
    public double Damping { get; }

    /// <summary>Mean of the Gram matrix's diagonal, 1 where that is zero; <see cref="GptqErrors"/> are in its units.</summary>
    public double Scale { get; }

    /// <summary>One weight for each column: the diagonal over its mean; empty when no channel was ever active.</summary>
    public float[] Importance { get; }

    /// <summary>What is added to H's diagonal, a value for each column of the tensor in units of <see cref="Scale"/>.</summary>
    internal ReadOnlySpan<float> Added => _added;

    /// <summary>The column of the tensor that is visited at each position.</summary>
    public ReadOnlySpan<int> ColumnOrder => _order;

    /// <summary>For each block of columns in <see cref="ColumnOrder"/>, R with <c>H + added = R R^T</c> down to the block's end.</summary>
    internal MatrixProductPanels[] Factor { get; }

    /// <summary>For each block of columns as the tensor has them, all rows of H in units of <see cref="Scale"/>.</summary>
    internal MatrixProductPanels[] Gram { get; }

    private static double Diagonal(string tensor, GramMatrix gram, int i)
    {
        double value = gram[i, i];
        if (double.IsFinite(value) && value >= 0) return value;
        throw NotFinite(tensor, string.Create(CultureInfo.InvariantCulture, $"{value:r} for channel {i}"));
    }

    private static void CheckFinite(string tensor, float[] matrix)
    {
        if (FiniteCheck.FindNonFinite(matrix) >= 0) throw NotFinite(tensor, "a product of two channels that is not finite");
    }

    private static QuantException NotFinite(string tensor, string found) => new(ErrorKind.Numeric, "the Gram matrix of a linear's inputs is not usable")
    {
        Rule = StatisticsRules.Usable,
        Tensor = tensor,
        Found = found,
        Expected = "finite sums of squares",
        Remedy = "Activations overflow: check the model with 'perplexity', and other calibration text",
    };

    private static int[] Order(double[] diagonal, int granule, bool falling)
    {
        IEnumerable<int> starts = Enumerable.Range(0, diagonal.Length / granule).Select(g => g * granule);
        // Stable: equal powers keep the order of their index.
        if (falling) starts = starts.OrderByDescending(start => diagonal.AsSpan(start, granule).ToArray().Sum());
        return [.. starts.SelectMany(start => Enumerable.Range(start, granule))];
    }

    private void Fill(float[] matrix, GramMatrix gram, WorkerTeam team) => team.Run(Width, row =>
    {
        Span<float> target = matrix.AsSpan((int)((long)row * Width), Width);
        target[..row].Clear();
        for (int column = row; column < Width; column++) target[column] = (float)(gram[_order[row], _order[column]] / Scale);
        target[row] += _added[_order[row]];
    });

    private MatrixProductPanels[] Panels(WorkerTeam team, Func<int, int, int> depthOf, Func<int, int, float> value)
    {
        MatrixProductPanels[] panels = new MatrixProductPanels[(Width + BlockSize - 1) / BlockSize];
        team.Run(panels.Length, block =>
        {
            int first = block * BlockSize, end = Math.Min(first + BlockSize, Width);
            MatrixProductPanels made = panels[block] = new(end - first, depthOf(block, end));
            for (int row = 0; row < made.Depth; row++)
            {
                for (int column = first; column < end; column += MatrixProduct.PanelWidth)
                {
                    float* target = made.Pointer + ((column - first) / MatrixProduct.PanelWidth * made.PanelStride) + ((long)row * MatrixProduct.PanelWidth);
                    int count = Math.Min(MatrixProduct.PanelWidth, end - column);
                    for (int i = 0; i < count; i++) target[i] = value(row, column + i);
                }
            }
        });
        return panels;
    }
}
