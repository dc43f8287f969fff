using System.Runtime.Intrinsics.X86;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Core.Numerics;

/// <summary>
/// The rows of one panel, at most <see cref="MatrixProduct.PanelWidth"/> channels, out of their blocks: unpacked whole, row after row, because memory is fast
/// in its own order only, then turned into blocks of the panel; channels beyond the last are zero. Used by one thread at a time.
/// </summary>
internal sealed unsafe class PanelPacker
{
    private const int Width = MatrixProduct.PanelWidth;

    // Values turned between two prefetches.
    private const int PieceLength = 32;

    private readonly NativeFloats _rows = new();
    private readonly NativeFloats _panel = new();
    private readonly NativeFloats _scales = new();
    private readonly NativeFloats _origins = new();
    private int _channels;
    private long _stride;
    private float* _values;
    private byte* _ahead;
    private int _aheadBytesPerPiece;

    /// <summary>For rows that are not in memory.</summary>
    public NativeFloats Raw { get; } = new();

    /// <summary>The one row of a product of one row.</summary>
    public ArrangedRow Row { get; } = new();

    /// <summary>[depth / 32] times the panel's width, after <see cref="UnpackIntegers"/>.</summary>
    public float* Scales => _scales.Get(0);

    /// <summary>As <see cref="Scales"/>; defined only for forms that have origins.</summary>
    public float* Origins => _origins.Get(0);

    /// <summary>Decodes rows of <paramref name="depth"/> values that lie back to back.</summary>
    public void UnpackFloats(ElementType type, byte* rows, int channels, int depth)
    {
        (_channels, _stride) = (channels, Stride(depth));
        float* values = _values = _rows.Get(Width * _stride);
        int rowBytes = checked((int)type.ByteCount(depth));
        LookAhead(rows, (long)channels * rowBytes, depth);
        for (int row = 0; row < channels; row++) type.Decode(new ReadOnlySpan<byte>(rows + ((long)row * rowBytes), rowBytes), new Span<float>(values + (row * _stride), depth));
    }

    /// <summary>Takes rows of <paramref name="depth"/> 16-bit values, an even number, as pairs where they lie: <see cref="LookAhead"/> has brought them near.</summary>
    public void TakePairs(byte* rows, int channels, int depth)
    {
        (_channels, _stride) = (channels, depth / 2);
        _values = (float*)rows;
        LookAhead(rows, 2L * channels * depth, depth / 2);
    }

    /// <summary>Takes rows of <paramref name="depth"/> values apart into codes, <see cref="Scales"/> and <see cref="Origins"/>.</summary>
    public void UnpackIntegers(ElementType type, byte* rows, int channels, int depth)
    {
        IntegerForm form = type.Integers!;
        (_channels, _stride) = (channels, Stride(depth / 2));
        float* values = _values = _rows.Get(Width * _stride);
        int runs = depth / IntegerForm.ScaleLength;
        float* scales = _scales.Get((long)runs * Width), origins = _origins.Get((long)runs * Width);
        if (channels < Width)
        {
            new Span<float>(scales, runs * Width).Clear();
            new Span<float>(origins, runs * Width).Clear();
        }

        long rowBytes = type.ByteCount(depth);
        LookAhead(rows, channels * rowBytes, depth / 2);
        for (int row = 0; row < channels; row++) form.Unpack(rows + (row * rowBytes), depth, (short*)(values + (row * _stride)), scales + row, origins + row, Width);
    }

    /// <summary>A block of the panel from what was unpacked last: <paramref name="length"/> values (floats, or pairs of codes) of each channel from <paramref name="first"/> on.</summary>
    public float* Block(int first, int length, SimdLevel level)
    {
        float* panel = _panel.Get(MatrixProduct.DepthBlock * Width);
        if (_channels < Width) new Span<float>(panel, length * Width).Clear();
        float* rows = _values + first;
        for (int piece = 0; piece < length; piece += PieceLength)
        {
            int count = Math.Min(PieceLength, length - piece);
            for (int row = 0; row < _channels; row += PanelTranspose.Rows)
            {
                PanelTranspose.Run(rows + piece + (row * _stride), _stride, Math.Min(PanelTranspose.Rows, _channels - row), count, panel + (piece * Width) + row, level);
            }

            Prefetch();
        }

        return panel;
    }

    // The panel that follows is asked for while this one is turned and multiplied, in as many pieces as it is turned in.
    private void LookAhead(byte* rows, long byteCount, int floatCount)
    {
        _ahead = rows + byteCount;
        _aheadBytesPerPiece = (int)(byteCount / Math.Max((floatCount + PieceLength - 1) / PieceLength, 1)) + 64;
    }

    private void Prefetch()
    {
        if (!Sse.IsSupported) return;
        byte* end = _ahead + _aheadBytesPerPiece;
        for (; _ahead < end; _ahead += 64) Sse.Prefetch1(_ahead);
    }

    // An odd number of cache lines from row to row keeps the rows out of one cache set.
    private static long Stride(int floatCount) => ((((long)floatCount + 15) / 16) | 1) * 16;
}
