using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Core.Numerics;

/// <summary>
/// The upper triangular R with <c>H = R R^T</c>, H symmetric positive definite: a Cholesky factorization that starts at the last column. Its inverse U is
/// the factor <c>H^-1 = U^T U</c> of GPTQ (Frantar et al. 2022, section 3.3); <c>U_ij / U_ii</c> updates and R give the same values, so that no inverse is formed.
/// </summary>
public static unsafe class Cholesky
{
    private const int BlockSize = 128;

    // A pivot below this share of its diagonal is the rounding of single-precision sums.
    private const double LeastPivot = 1.0 / (1 << 22);

    /// <summary>
    /// Factors in place. Blocks of columns are updated by matrix products in single precision; triangles on the diagonal are factored in double.
    /// The bits do not depend on the number of threads.
    /// </summary>
    /// <param name="matrix">[n, n]; the upper triangle of H is read and becomes R. Below the diagonal nothing is read, and within blocks zeros are written.</param>
    /// <returns>False when H is not positive definite within single precision; the matrix is then spoiled.</returns>
    public static bool TryFactor(float[] matrix, int n, WorkerTeam team)
    {
        if (matrix.Length < (long)n * n) throw new ArgumentException("too short", nameof(matrix));
        fixed (float* pinned = matrix) return TryFactor(pinned, n, team);
    }

    /// <summary>As the overload with an array.</summary>
    public static bool TryFactor(float* h, int n, WorkerTeam team)
    {
        MatrixProductPanels rows = new(0, 0), inverse = new(0, 0);
        double[] triangle = new double[BlockSize * BlockSize];
        double[] inverted = new double[BlockSize * BlockSize];
        float[] updated = new float[(long)n * BlockSize];
        fixed (float* pinnedSums = updated)
        {
            float* sums = pinnedSums;
            for (int first = (n - 1) / BlockSize * BlockSize; first >= 0; first -= BlockSize)
            {
                int size = Math.Min(BlockSize, n - first), end = first + size, depth = n - end;
                Pack(rows, size, depth, row => new ReadOnlySpan<float>(h + ((long)(first + row) * n) + end, depth));
                Update(h, sums, rows, n, first, size, depth, team);
                if (!FactorTriangle(sums, h, n, first, size, triangle)) return false;
                Invert(triangle, inverted, size);
                float[] row32 = new float[size];
                Pack(inverse, size, size, row =>
                {
                    for (int i = 0; i < size; i++) row32[i] = (float)inverted[(row * size) + i];
                    return row32;
                });
                // X R_bb^T = C: products with the inverse of the triangle.
                Rows(first, team, (from, count) => MatrixProduct.MultiplyPanels(
                    sums + ((long)from * size), size, count, size, inverse.Pointer, inverse.PanelStride, size, h + ((long)from * n) + first, n, accumulate: false));
                for (int row = 0; row < size; row++)
                {
                    for (int column = 0; column < size; column++) h[((long)(first + row) * n) + first + column] = (float)triangle[(row * size) + column];
                }
            }
        }

        GC.KeepAlive(rows);
        GC.KeepAlive(inverse);
        return true;
    }

    private delegate ReadOnlySpan<float> RowSource(int row);

    private static void Pack(MatrixProductPanels panels, int size, int depth, RowSource source)
    {
        panels.Reshape(size, depth);
        if (depth == 0) return;
        new Span<float>(panels.Pointer, (int)MatrixProductPanels.FloatCount(size, depth)).Clear();
        for (int row = 0; row < size; row++) panels.Pack(source(row), row);
    }

    private static void Rows(int rowCount, WorkerTeam team, Action<int, int> body)
    {
        const int chunk = 96;
        team.Run((rowCount + chunk - 1) / chunk, task => body(task * chunk, Math.Min(chunk, rowCount - (task * chunk))));
    }

    /// <summary>sums [end, size] = H - R R^T of the columns done.</summary>
    private static void Update(float* h, float* sums, MatrixProductPanels rows, int n, int first, int size, int depth, WorkerTeam team) =>
        Rows(first + size, team, (from, count) =>
        {
            float* target = sums + ((long)from * size);
            float* source = h + ((long)from * n) + first;
            MatrixProduct.MultiplyPanels(source + size, n, count, depth, rows.Pointer, rows.PanelStride, size, target, size, accumulate: false);
            for (int row = 0; row < count; row++)
            {
                for (int column = 0; column < size; column++) target[(row * size) + column] = source[((long)row * n) + column] - target[(row * size) + column];
            }
        });

    private static bool FactorTriangle(float* sums, float* h, int n, int first, int size, double[] triangle)
    {
        Array.Clear(triangle);
        for (int j = size - 1; j >= 0; j--)
        {
            for (int i = j; i >= 0; i--)
            {
                double sum = sums[((long)(first + i) * size) + j];
                for (int k = j + 1; k < size; k++) sum -= triangle[(i * size) + k] * triangle[(j * size) + k];
                if (i < j)
                {
                    triangle[(i * size) + j] = sum / triangle[(j * size) + j];
                    continue;
                }

                if (!(sum > LeastPivot * h[((long)(first + j) * n) + first + j]) || double.IsInfinity(sum)) return false;
                triangle[(j * size) + j] = Math.Sqrt(sum);
            }
        }

        return true;
    }

    private static void Invert(double[] triangle, double[] inverse, int size)
    {
        Array.Clear(inverse);
        for (int i = size - 1; i >= 0; i--)
        {
            inverse[(i * size) + i] = 1 / triangle[(i * size) + i];
            for (int j = i + 1; j < size; j++)
            {
                double sum = 0;
                for (int k = i + 1; k <= j; k++) sum += triangle[(i * size) + k] * inverse[(k * size) + j];
                inverse[(i * size) + j] = -sum / triangle[(i * size) + i];
            }
        }
    }
}
