using System.Globalization;
using System.Numerics.Tensors;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Quantization;

/// <summary>
/// A Gram matrix made ready for <see cref="GptqSolver"/>: ordered, damped and factored.
/// Linears that share their input and their granule share it. Takes 8 bytes for each pair (i, j) of channels.
/// </summary>
public sealed unsafe class GptqHessian : IDisposable
{
    internal const int BlockSize = 128;

    private const int Attempts = 8;

    private readonly int[] _order;
    private readonly int[] _inputs;
    private readonly float[] _added;
    private readonly NativeFloats _gram = new();
    private readonly NativeFloats _factor = new();

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
        _inputs = options.PermutesColumns ? Order(diagonal, granuleLength, falling: true) : [];
        if (options.PermutesColumns) diagonal = [.. _inputs.Select(input => diagonal[input])];
        double mean = diagonal.Average();
        // Scaled to a mean of 1: the factor and the error's units are those of single precision whatever the activations are.
        Scale = mean > 0 ? mean : 1;
        Importance = mean > 0 ? [.. diagonal.Select(value => (float)(value / Scale))] : [];
        _added = new float[Width];
        _order = Order(diagonal, granuleLength, options.ActivationOrder && !options.PermutesColumns);

        float* h = _gram.Get((long)Width * Width), factor = _factor.Get((long)Width * Width);
        Expand(gram, options.PermutesColumns ? factor : h, team);
        if (options.PermutesColumns) Permute(factor, h, team);
        double damping = mean > 0 ? options.Damping : 1;
        for (int attempt = 0; ; attempt++)
        {
            for (int i = 0; i < Width; i++) _added[i] = (float)(damping + (options.Shrinkage * diagonal[i] / Scale));
            Fill(h, factor, team);
            CheckFinite(tensor, factor);
            if (Cholesky.TryFactor(factor, Width, team)) break;
            if (attempt == Attempts) throw new QuantException(ErrorKind.Numeric, "the Gram matrix of a linear's inputs is not positive definite at any damping") { Rule = StatisticsRules.Damping, Tensor = tensor };
            damping = Math.Max(damping * 10, 1e-6);
        }

        Damping = damping;
        Transpose(factor, team);
    }

    /// <summary>Bytes that one takes.</summary>
    public static long ByteCount(int width) => checked(8L * width * width);

    public int Width { get; }
    public int GranuleLength { get; }
    public GptqOptions Options { get; }

    /// <summary>The damping that was needed, as a share of the mean diagonal.</summary>
    public double Damping { get; }

    /// <summary>Mean of the Gram matrix's diagonal, 1 where that is zero; <see cref="GptqErrors"/> are in its units.</summary>
    public double Scale { get; }

    /// <summary>The channel of each column of the rows that are solved; empty where they are as the tensor has them. All else here counts those columns.</summary>
    public ReadOnlySpan<int> InputOrder => _inputs;

    /// <summary>One weight for each column: the diagonal over its mean; empty when no channel was ever active.</summary>
    public float[] Importance { get; }

    /// <summary>What is added to H's diagonal, a value for each column of the tensor in units of <see cref="Scale"/>.</summary>
    internal ReadOnlySpan<float> Added => _added;

    /// <summary>The column of the tensor that is visited at each position.</summary>
    public ReadOnlySpan<int> ColumnOrder => _order;

    /// <summary>[width, width] in <see cref="ColumnOrder"/>, the transposed R with <c>H + added = R R^T</c>: the lower triangle. Valid while this object is.</summary>
    internal float* Factor => _factor.Get(0);

    /// <summary>[width, width] in the tensor's order, H in units of <see cref="Scale"/>.</summary>
    internal float* Gram => _gram.Get(0);

    /// <summary>Divides rows, in the tensor's order, by H and what is added to it: each u becomes <c>u (H + added)^-1</c>, in units of 1 / <see cref="Scale"/>.</summary>
    internal void Divide(Span<float> rows)
    {
        int rowCount = rows.Length / Width;
        float[] z = new float[rows.Length];
        for (int row = 0; row < rowCount; row++)
        {
            for (int i = 0; i < Width; i++) z[(row * Width) + i] = rows[(row * Width) + Column(i)];
        }

        // H + added = R R^T with the rows of R^T at hand: first R y = u from the last column on, then R^T x = y from the first.
        for (int i = Width - 1; i >= 0; i--)
        {
            ReadOnlySpan<float> factor = new(Factor + ((long)i * Width), i);
            float diagonal = Factor[((long)i * Width) + i];
            for (int row = 0; row < rowCount; row++)
            {
                float value = z[(row * Width) + i] /= diagonal;
                Span<float> rest = z.AsSpan(row * Width, i);
                TensorPrimitives.MultiplyAdd(factor, -value, rest, rest);
            }
        }

        for (int i = 0; i < Width; i++)
        {
            ReadOnlySpan<float> factor = new(Factor + ((long)i * Width), i);
            float diagonal = Factor[((long)i * Width) + i];
            for (int row = 0; row < rowCount; row++)
            {
                ref float value = ref z[(row * Width) + i];
                value = (value - TensorPrimitives.Dot(factor, z.AsSpan(row * Width, i))) / diagonal;
            }
        }

        for (int row = 0; row < rowCount; row++)
        {
            for (int i = 0; i < Width; i++) rows[(row * Width) + Column(i)] = z[(row * Width) + i];
        }

        int Column(int position) => _inputs.Length == 0 ? _order[position] : _inputs[_order[position]];
    }

    public void Dispose()
    {
        _gram.Dispose();
        _factor.Dispose();
    }

    private static double Diagonal(string tensor, GramMatrix gram, int i)
    {
        double value = gram[i, i];
        if (double.IsFinite(value) && value >= 0) return value;
        throw NotFinite(tensor, string.Create(CultureInfo.InvariantCulture, $"{value:r} for channel {i}"));
    }

    private void CheckFinite(string tensor, float* matrix)
    {
        for (int row = 0; row < Width; row++)
        {
            if (FiniteCheck.FindNonFinite(new ReadOnlySpan<float>(matrix + ((long)row * Width) + row, Width - row)) >= 0) throw NotFinite(tensor, "a product of two channels that is not finite");
        }
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

    /// <summary>Both triangles of H from the lower one of the sums.</summary>
    private void Expand(GramMatrix gram, float* h, WorkerTeam team)
    {
        team.Run(Width, row =>
        {
            Span<float> target = new(h + ((long)row * Width), row + 1);
            gram.CopyRow(row, Scale, target);
        });
        ForEachTile(team, (first, rows, column, columns) =>
        {
            for (int row = first; row < first + rows; row++)
            {
                for (int i = column; i < Math.Min(column + columns, row); i++) h[((long)i * Width) + row] = h[((long)row * Width) + i];
            }
        });
    }

    private void Permute(float* source, float* target, WorkerTeam team) => team.Run(Width, row =>
    {
        float* from = source + ((long)_inputs[row] * Width), to = target + ((long)row * Width);
        for (int column = 0; column < Width; column++) to[column] = from[_inputs[column]];
    });

    /// <summary>The upper triangle of H in the order of columns, with what is added to its diagonal.</summary>
    private void Fill(float* h, float* matrix, WorkerTeam team) => team.Run(Width, row =>
    {
        float* source = h + ((long)_order[row] * Width), target = matrix + ((long)row * Width);
        for (int column = row; column < Width; column++) target[column] = source[_order[column]];
        target[row] += _added[_order[row]];
    });

    /// <summary>Moves the upper triangle to the lower.</summary>
    private void Transpose(float* matrix, WorkerTeam team) => ForEachTile(team, (first, rows, column, columns) =>
    {
        for (int row = first; row < first + rows; row++)
        {
            for (int i = column; i < Math.Min(column + columns, row); i++) matrix[((long)row * Width) + i] = matrix[((long)i * Width) + row];
        }
    });

    /// <summary>The tiles of the lower triangle, small enough for both a tile and its mirror image to stay in a first-level cache.</summary>
    private void ForEachTile(WorkerTeam team, Action<int, int, int, int> action)
    {
        const int tile = 32;
        int count = (Width + tile - 1) / tile;
        team.Run(count, at =>
        {
            int first = (count - 1 - at) * tile;
            for (int column = 0; column <= first; column += tile) action(first, Math.Min(tile, Width - first), column, tile);
        });
    }
}
