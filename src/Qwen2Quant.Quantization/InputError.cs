using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Quantization;

/// <summary>
/// The sums of <c>x (y - x)^T</c> over tokens, x what a linear takes in the model as it is being quantized and y what it takes in the original: the asymmetric
/// calibration of GPTAQ (Li et al. 2025). With H the sums of <c>x x^T</c> the outputs of the original, <c>W y</c>, are met best by <c>W + W D^T H^-1</c>, D these sums.
/// </summary>
public sealed unsafe class InputError : IDisposable
{
    // As in GramMatrix.
    private const int BlockSize = 96, ColumnChunk = 512;

    // Rows that go through the factor together.
    private const int RowsPerTask = 8;

    private readonly NativeFloats _sums = new();
    private readonly GatheredRows _inputs, _errors;

    public InputError(int width)
    {
        Width = width;
        NativeMemory.Clear(_sums.Get((long)width * width), (nuint)((long)width * width * sizeof(float)));
        (_inputs, _errors) = (new GatheredRows(width), new GatheredRows(width));
    }

    public int Width { get; }

    /// <summary>Bytes that one takes, with the panels that <see cref="Correct"/> multiplies by.</summary>
    public static long ByteCount(int width) => (2L * width * width * sizeof(float)) + (2 * GatheredRows.ByteCount(width));

    /// <summary>Adds tokens.</summary>
    /// <param name="rows">[rowCount, <see cref="Width"/>], what the linear takes.</param>
    /// <param name="originals">The same of the original model.</param>
    public void Add(ReadOnlySpan<float> rows, ReadOnlySpan<float> originals, WorkerTeam team)
    {
        float[] errors = new float[Math.Min(rows.Length, GatheredRows.Capacity * Width)];
        for (int at = 0; at < rows.Length;)
        {
            int length = Math.Min((GatheredRows.Capacity - _inputs.Count) * Width, rows.Length - at);
            Span<float> error = errors.AsSpan(0, length);
            TensorPrimitives.Subtract(originals.Slice(at, length), rows.Slice(at, length), error);
            _inputs.Add(rows.Slice(at, length), team);
            _errors.Add(error, team);
            at += length;
            if (_inputs.Count == GatheredRows.Capacity) Fold(team);
        }
    }

    /// <summary>Moves weights to where the outputs that they and the inputs at hand give are nearest to the original's.</summary>
    /// <param name="rows">[rows, <see cref="Width"/>], in the tensor's order.</param>
    /// <param name="share">How far: 1 all the way.</param>
    public void Correct(Span<float> rows, GptqHessian hessian, double share, WorkerTeam team)
    {
        Fold(team);
        int rowCount = rows.Length / Width;
        MatrixProductPanels panels = new(Width, Width);
        team.Run((Width + MatrixProduct.PanelWidth - 1) / MatrixProduct.PanelWidth, panel =>
        {
            int first = panel * MatrixProduct.PanelWidth, count = Math.Min(MatrixProduct.PanelWidth, Width - first);
            panels.Pack(new ReadOnlySpan<float>(_sums.Get(0) + ((long)first * Width), count * Width), first);
        });
        using NativeFloats scratch = new();
        float* moves = scratch.Get((long)rowCount * Width);
        fixed (float* weights = rows)
        {
            float* pinned = weights;
            MatrixProduct.Multiply(pinned, rowCount, panels, moves, Width, team);
            float scale = (float)(share / hessian.Scale);
            team.Run((rowCount + RowsPerTask - 1) / RowsPerTask, task =>
            {
                int first = task * RowsPerTask, count = Math.Min(RowsPerTask, rowCount - first);
                Span<float> move = new(moves + ((long)first * Width), count * Width), target = new(pinned + ((long)first * Width), count * Width);
                hessian.Divide(move);
                TensorPrimitives.MultiplyAdd(move, scale, target, target);
            });
        }
    }

    public void Dispose() => _sums.Dispose();

    private void Fold(WorkerTeam team)
    {
        if (_inputs.Count == 0) return;
        float* sums = _sums.Get(0);
        team.Run((Width + BlockSize - 1) / BlockSize, block =>
        {
            int first = block * BlockSize, rowCount = Math.Min(BlockSize, Width - first);
            float[] storage = MatrixProductPanels.AllocateAligned(BlockSize * GatheredRows.LeftStride, out float* left);
            _inputs.Turn(first, rowCount, left);
            for (int column = 0; column < Width; column += ColumnChunk)
            {
                MatrixProductPanels errors = _errors.Panels;
                MatrixProduct.MultiplyPanels(
                    left, GatheredRows.LeftStride, rowCount, _inputs.Count, errors.Pointer + (column / MatrixProduct.PanelWidth * errors.PanelStride), errors.PanelStride,
                    Math.Min(ColumnChunk, Width - column), sums + ((long)first * Width) + column, Width, accumulate: true);
            }

            GC.KeepAlive(storage);
        });
        _inputs.Clear();
        _errors.Clear();
    }
}
