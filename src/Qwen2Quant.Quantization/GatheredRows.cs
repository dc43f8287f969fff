using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Quantization;

/// <summary>Rows of activations on their way into sums of products of channels: the right operand as it is gathered, and blocks of it turned into the left one.</summary>
internal sealed unsafe class GatheredRows(int width)
{
    /// <summary>Rows summed in single precision, 256 to a chain, before they are added to what was summed before.</summary>
    public const int Capacity = 1024;

    /// <summary>Floats from channel to channel of a turned block; sixteen more than the depth keep them out of one cache set.</summary>
    public const int LeftStride = Capacity + 16;

    public MatrixProductPanels Panels { get; } = new(width, Capacity);

    public int Count { get; private set; }

    public static long ByteCount(int width) => MatrixProductPanels.FloatCount(width, Capacity) * sizeof(float);

    /// <summary>Appends rows back to back; there is room for them.</summary>
    public void Add(ReadOnlySpan<float> rows, WorkerTeam team)
    {
        const int panelWidth = MatrixProduct.PanelWidth, rowsPerTask = 64;
        int rowCount = rows.Length / width, before = Count;
        fixed (float* pinned = rows)
        {
            float* source = pinned;
            team.Run((rowCount + rowsPerTask - 1) / rowsPerTask, task =>
            {
                for (int row = task * rowsPerTask; row < Math.Min(rowCount, (task + 1) * rowsPerTask); row++)
                {
                    float* target = Panels.Pointer + ((long)(before + row) * panelWidth), from = source + ((long)row * width);
                    for (int first = 0; first < width; first += panelWidth) new ReadOnlySpan<float>(from + first, Math.Min(panelWidth, width - first)).CopyTo(new Span<float>(target + (first / panelWidth * Panels.PanelStride), panelWidth));
                }
            });
        }

        Count += rowCount;
    }

    public void Clear()
    {
        Count = 0;
        GC.KeepAlive(Panels);
    }

    /// <summary>Channels <paramref name="first"/> and on as rows of <see cref="LeftStride"/>; <paramref name="first"/> is a multiple of a panel's width.</summary>
    public void Turn(int first, int channelCount, float* left)
    {
        for (int row = 0; row < channelCount; row += MatrixProduct.PanelWidth)
        {
            float* source = Panels.Pointer + ((first + row) / MatrixProduct.PanelWidth * Panels.PanelStride);
            int lanes = Math.Min(MatrixProduct.PanelWidth, channelCount - row);
            for (int k = 0; k < Count; k++, source += MatrixProduct.PanelWidth)
            {
                float* target = left + (row * LeftStride) + k;
                for (int lane = 0; lane < lanes; lane++) target[lane * LeftStride] = source[lane];
            }
        }
    }
}
