using System.Buffers;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Pipeline.Checkpoints;

/// <summary>
/// A model whose MLPs are wider by channels that give nothing: zero rows in gate and up, zero columns in down. Of k channels more one follows each of the first k, as Qwen does it
/// for its own checkpoints, so that every tensor-parallel part gets some. Untied, the output matrix is the embedding once more. Plain types only; it does not close the original.
/// </summary>
internal sealed class PaddedTensors : ITensorSource
{
    private const string Embedding = "model.embed_tokens.weight", Output = "lm_head.weight";

    private readonly ITensorSource _original;
    private readonly Dictionary<string, (TensorEntry Original, TensorEntry Padded)> _byName = new(StringComparer.Ordinal);

    /// <param name="catalogue">Of the padded model.</param>
    public PaddedTensors(ITensorSource original, TensorCatalogue catalogue)
    {
        _original = original;
        List<TensorEntry> tensors = [];
        foreach (CanonicalTensor tensor in catalogue.Tensors)
        {
            TensorEntry source = original.Find(tensor.Name) ?? original.Find(tensor.Name == Output ? Embedding : tensor.Name)!;
            TensorEntry padded = new(tensor.Name, source.Type, tensor.Shape, source.ByteOffset, source.FileIndex);
            _byName.Add(tensor.Name, (source, padded));
            tensors.Add(padded);
        }

        Tensors = tensors;
    }

    public IReadOnlyList<TensorEntry> Tensors { get; }

    public TensorEntry? Find(string name) => _byName.TryGetValue(name, out (TensorEntry Original, TensorEntry Padded) known) ? known.Padded : null;

    public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination)
    {
        TensorEntry original = _byName[entry.Name].Original;
        if (original.Shape.Equals(entry.Shape))
        {
            _original.ReadRaw(original, byteOffset, destination);
            return;
        }

        int rowBytes = checked((int)entry.Type.ByteCount(entry.Shape.RowLength)), sourceBytes = checked((int)original.Type.ByteCount(original.Shape.RowLength));
        long moreRows = entry.Shape.RowCount - original.Shape.RowCount, moreColumns = entry.Shape.RowLength - original.Shape.RowLength;
        byte[] source = ArrayPool<byte>.Shared.Rent(sourceBytes), padded = ArrayPool<byte>.Shared.Rent(rowBytes);
        for (int done = 0; done < destination.Length;)
        {
            (long row, long offset) = Math.DivRem(byteOffset + done, rowBytes);
            int length = (int)Math.Min(rowBytes - offset, destination.Length - done);
            Span<byte> target = destination.Slice(done, length);
            if (Origin(row, moreRows) is { } from)
            {
                _original.ReadRaw(original, from * sourceBytes, source.AsSpan(0, sourceBytes));
                Spread(source.AsSpan(0, sourceBytes), padded.AsSpan(0, rowBytes), moreColumns, entry.Type.BytesPerBlock);
                padded.AsSpan((int)offset, length).CopyTo(target);
            }
            else
            {
                target.Clear();
            }

            done += length;
        }

        ArrayPool<byte>.Shared.Return(source);
        ArrayPool<byte>.Shared.Return(padded);
    }

    public void Dispose()
    {
    }

    /// <summary>The channel that a padded one was, or null for one that is new.</summary>
    private static long? Origin(long channel, long more) => channel >= 2 * more ? channel - more : channel % 2 == 0 ? channel / 2 : null;

    private static void Spread(ReadOnlySpan<byte> source, Span<byte> padded, long more, int valueBytes)
    {
        if (more == 0)
        {
            source.CopyTo(padded);
            return;
        }

        padded[..(int)(2 * more * valueBytes)].Clear();
        for (int column = 0; column < more; column++) source.Slice(column * valueBytes, valueBytes).CopyTo(padded[(2 * column * valueBytes)..]);
        source[(int)(more * valueBytes)..].CopyTo(padded[(int)(2 * more * valueBytes)..]);
    }
}
