using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>Where gguf-split cuts a model: after a number of tensors, or before the padded bytes of a part's tensors exceed a number. Metadata do not count.</summary>
public sealed record GgufSplitLimit
{
    private GgufSplitLimit(long tensorCount, long byteCount) => (TensorCount, ByteCount) = (tensorCount, byteCount);

    /// <summary>Tensors of a part, at most.</summary>
    public long TensorCount { get; }

    /// <summary>Padded tensor bytes of a part, at most; a tensor that is larger has a part of its own.</summary>
    public long ByteCount { get; }

    /// <exception cref="ArgumentOutOfRangeException"><paramref name="count"/> is not positive.</exception>
    public static GgufSplitLimit Tensors(long count)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(count);
        return new GgufSplitLimit(count, long.MaxValue);
    }

    /// <exception cref="ArgumentOutOfRangeException"><paramref name="count"/> is not positive.</exception>
    public static GgufSplitLimit Bytes(long count)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(count);
        return new GgufSplitLimit(long.MaxValue, count);
    }

    /// <summary>Consecutive tensors part by part; one empty part when there are none.</summary>
    internal IReadOnlyList<IReadOnlyList<OutputTensor>> Cut(IReadOnlyList<OutputTensor> tensors, int alignment, string path)
    {
        List<OutputTensor> part = [];
        List<IReadOnlyList<OutputTensor>> parts = [part];
        long bytes = 0;
        foreach (OutputTensor tensor in tensors)
        {
            long end = GgufPlan.PaddedEnd(bytes, tensor, alignment, path);
            if (part.Count > 0 && (part.Count >= TensorCount || end > ByteCount))
            {
                parts.Add(part = []);
                end -= bytes;
            }

            part.Add(tensor);
            bytes = end;
        }

        return parts;
    }
}
