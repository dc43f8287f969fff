using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Core.Numerics;

/// <summary>Rows of 32-bit values (floats, or pairs of 16-bit integers) to one block of a panel: value k of row r goes to <c>k * PanelWidth + r</c>.</summary>
internal static unsafe class PanelTranspose
{
    /// <summary>Rows written at a time; fewer leave the channels behind them as they are.</summary>
    public const int Rows = 16;

    /// <param name="rows">Row r starts at <c>r * rowStride</c>, at most <see cref="Rows"/> of them.</param>
    /// <param name="panel">The channel of row 0.</param>
    public static void Run(float* rows, long rowStride, int rowCount, int length, float* panel, SimdLevel level)
    {
        int k = 0;
        if (rowCount == Rows && level >= SimdLevel.Avx512)
        {
            for (; k + 16 <= length; k += 16) Square16(rows + k, rowStride, panel + ((long)k * MatrixProduct.PanelWidth));
        }
        else if (rowCount == Rows && level >= SimdLevel.Avx2)
        {
            for (; k + 8 <= length; k += 8)
            {
                Square8(rows + k, rowStride, panel + ((long)k * MatrixProduct.PanelWidth));
                Square8(rows + (8 * rowStride) + k, rowStride, panel + ((long)k * MatrixProduct.PanelWidth) + 8);
            }
        }
        else if (rowCount == Rows && level >= SimdLevel.Vector128)
        {
            for (int row = 0; row < Rows; row += 4) Four(rows + (row * rowStride), rowStride, length, panel + row);
            return;
        }

        for (int row = 0; row < rowCount; row++)
        {
            for (int i = k; i < length; i++) panel[((long)i * MatrixProduct.PanelWidth) + row] = rows[(row * rowStride) + i];
        }
    }

    private static void Four(float* rows, long stride, int length, float* panel)
    {
        float* r0 = rows, r1 = r0 + stride, r2 = r1 + stride, r3 = r2 + stride;
        for (int k = 0; k < length; k++) Vector128.Create(r0[k], r1[k], r2[k], r3[k]).Store(panel + ((long)k * MatrixProduct.PanelWidth));
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Square8(float* rows, long stride, float* panel)
    {
        const int Width = MatrixProduct.PanelWidth;
        Quad8(rows, stride, out Vector256<float> a0, out Vector256<float> a1, out Vector256<float> a2, out Vector256<float> a3);
        Quad8(rows + (4 * stride), stride, out Vector256<float> b0, out Vector256<float> b1, out Vector256<float> b2, out Vector256<float> b3);
        Avx.Permute2x128(a0, b0, 0x20).Store(panel);
        Avx.Permute2x128(a1, b1, 0x20).Store(panel + Width);
        Avx.Permute2x128(a2, b2, 0x20).Store(panel + (2 * Width));
        Avx.Permute2x128(a3, b3, 0x20).Store(panel + (3 * Width));
        Avx.Permute2x128(a0, b0, 0x31).Store(panel + (4 * Width));
        Avx.Permute2x128(a1, b1, 0x31).Store(panel + (5 * Width));
        Avx.Permute2x128(a2, b2, 0x31).Store(panel + (6 * Width));
        Avx.Permute2x128(a3, b3, 0x31).Store(panel + (7 * Width));
    }

    // Four rows: register j holds in each 128-bit lane L values 4L + j of the four.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Quad8(float* rows, long stride, out Vector256<float> q0, out Vector256<float> q1, out Vector256<float> q2, out Vector256<float> q3)
    {
        Vector256<float> r0 = Avx.LoadVector256(rows), r1 = Avx.LoadVector256(rows + stride);
        Vector256<float> r2 = Avx.LoadVector256(rows + (2 * stride)), r3 = Avx.LoadVector256(rows + (3 * stride));
        Vector256<double> low01 = Avx.UnpackLow(r0, r1).AsDouble(), high01 = Avx.UnpackHigh(r0, r1).AsDouble();
        Vector256<double> low23 = Avx.UnpackLow(r2, r3).AsDouble(), high23 = Avx.UnpackHigh(r2, r3).AsDouble();
        q0 = Avx.UnpackLow(low01, low23).AsSingle();
        q1 = Avx.UnpackHigh(low01, low23).AsSingle();
        q2 = Avx.UnpackLow(high01, high23).AsSingle();
        q3 = Avx.UnpackHigh(high01, high23).AsSingle();
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Square16(float* rows, long stride, float* panel)
    {
        Quad16(rows, stride, out Vector512<float> a0, out Vector512<float> a1, out Vector512<float> a2, out Vector512<float> a3);
        Quad16(rows + (4 * stride), stride, out Vector512<float> b0, out Vector512<float> b1, out Vector512<float> b2, out Vector512<float> b3);
        Quad16(rows + (8 * stride), stride, out Vector512<float> c0, out Vector512<float> c1, out Vector512<float> c2, out Vector512<float> c3);
        Quad16(rows + (12 * stride), stride, out Vector512<float> d0, out Vector512<float> d1, out Vector512<float> d2, out Vector512<float> d3);
        Columns(a0, b0, c0, d0, panel);
        Columns(a1, b1, c1, d1, panel + MatrixProduct.PanelWidth);
        Columns(a2, b2, c2, d2, panel + (2 * MatrixProduct.PanelWidth));
        Columns(a3, b3, c3, d3, panel + (3 * MatrixProduct.PanelWidth));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Quad16(float* rows, long stride, out Vector512<float> q0, out Vector512<float> q1, out Vector512<float> q2, out Vector512<float> q3)
    {
        Vector512<float> r0 = Avx512F.LoadVector512(rows), r1 = Avx512F.LoadVector512(rows + stride);
        Vector512<float> r2 = Avx512F.LoadVector512(rows + (2 * stride)), r3 = Avx512F.LoadVector512(rows + (3 * stride));
        Vector512<double> low01 = Avx512F.UnpackLow(r0, r1).AsDouble(), high01 = Avx512F.UnpackHigh(r0, r1).AsDouble();
        Vector512<double> low23 = Avx512F.UnpackLow(r2, r3).AsDouble(), high23 = Avx512F.UnpackHigh(r2, r3).AsDouble();
        q0 = Avx512F.UnpackLow(low01, low23).AsSingle();
        q1 = Avx512F.UnpackHigh(low01, low23).AsSingle();
        q2 = Avx512F.UnpackLow(high01, high23).AsSingle();
        q3 = Avx512F.UnpackHigh(high01, high23).AsSingle();
    }

    // Lane L of the four goes to value 4L of the block that starts at panel.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Columns(Vector512<float> a, Vector512<float> b, Vector512<float> c, Vector512<float> d, float* panel)
    {
        Vector512<float> even0 = Avx512F.Shuffle4x128(a, b, 0x88), even1 = Avx512F.Shuffle4x128(c, d, 0x88);
        Vector512<float> odd0 = Avx512F.Shuffle4x128(a, b, 0xdd), odd1 = Avx512F.Shuffle4x128(c, d, 0xdd);
        Avx512F.Store(panel, Avx512F.Shuffle4x128(even0, even1, 0x88));
        Avx512F.Store(panel + (4 * MatrixProduct.PanelWidth), Avx512F.Shuffle4x128(odd0, odd1, 0x88));
        Avx512F.Store(panel + (8 * MatrixProduct.PanelWidth), Avx512F.Shuffle4x128(even0, even1, 0xdd));
        Avx512F.Store(panel + (12 * MatrixProduct.PanelWidth), Avx512F.Shuffle4x128(odd0, odd1, 0xdd));
    }
}
