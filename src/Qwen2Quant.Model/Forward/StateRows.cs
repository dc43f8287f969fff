using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Model;

/// <summary>What all tokens carry from one step of the model to the next, [rowCount, width] floats, in memory or in a scratch file.</summary>
internal sealed unsafe class StateRows : IDisposable
{
    private readonly int _widest;
    private readonly NativeFloats? _memory;
    private readonly float* _first;
    private readonly IScratchFile? _file;
    private int _width;

    /// <param name="file">Where the rows are kept, null for memory; owned from then on.</param>
    public StateRows(long rowCount, int width, IScratchFile? file)
    {
        _widest = _width = width;
        _file = file;
        if (file is null) _first = (_memory = new NativeFloats()).Get(checked(rowCount * width));
    }

    /// <summary>Floats of a row, at most as many as at first; what was written with another width is lost.</summary>
    public int Width
    {
        get => _width;
        set => _width = value <= _widest ? value : throw new ArgumentOutOfRangeException(nameof(value));
    }

    /// <exception cref="QuantException">The file cannot be read.</exception>
    public void Read(long firstRow, float* rows, int rowCount)
    {
        Span<byte> bytes = Bytes(rows, rowCount);
        if (_memory is not null)
        {
            Bytes(_first + (firstRow * _width), rowCount).CopyTo(bytes);
            GC.KeepAlive(_memory);
            return;
        }

        long byteOffset = firstRow * _width * sizeof(float);
        try
        {
            while (!bytes.IsEmpty)
            {
                int read = _file!.Read(byteOffset, bytes);
                if (read <= 0) throw new IOException("it ends before what was written");
                byteOffset += read;
                bytes = bytes[read..];
            }
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            throw new QuantException(ErrorKind.Resource, $"the hidden states cannot be read back: {error.Message}", error) { Path = _file!.Path, ByteOffset = byteOffset, Remedy = "Check the disk." };
        }
    }

    /// <exception cref="QuantException">The file cannot be written.</exception>
    public void Write(long firstRow, float* rows, int rowCount)
    {
        ReadOnlySpan<byte> bytes = Bytes(rows, rowCount);
        if (_memory is not null)
        {
            bytes.CopyTo(Bytes(_first + (firstRow * _width), rowCount));
            GC.KeepAlive(_memory);
            return;
        }

        try
        {
            _file!.Write(firstRow * _width * sizeof(float), bytes);
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            throw new QuantException(ErrorKind.Resource, $"the hidden states cannot be written: {error.Message}", error)
            {
                Path = _file!.Path, Remedy = "Give more --memory, fewer windows, or set TMPDIR to a folder on a larger disk.",
            };
        }
    }

    public void Dispose()
    {
        _memory?.Dispose();
        _file?.Dispose();
    }

    private Span<byte> Bytes(float* rows, int rowCount) => new(rows, checked(rowCount * _width * sizeof(float)));
}
