using Qwen2Quant.Core.Files;
using Qwen2Quant.Pipeline.Planning;

namespace Qwen2Quant.Pipeline.Running;

/// <summary>Gathers the slabs of matrices whose layout scatters them, and writes each matrix once it is whole. Thread-safe.</summary>
internal sealed class PackedWriter
{
    private readonly Dictionary<string, (byte[] Rows, long Missing)> _gathering = new(StringComparer.Ordinal);

    /// <param name="offset">Of <paramref name="encoded"/> in the matrix as it is encoded.</param>
    public void Add(PlanItem item, long offset, ReadOnlySpan<byte> encoded, IReadOnlyList<IWriteFile> files)
    {
        byte[] rows;
        lock (_gathering)
        {
            if (!_gathering.TryGetValue(item.Name, out (byte[] Rows, long Missing) entry)) entry = (new byte[item.Target.Tensor.ByteLength], item.Target.Tensor.ByteLength);
            rows = entry.Rows;
            encoded.CopyTo(rows.AsSpan(checked((int)offset)));
            entry.Missing -= encoded.Length;
            if (entry.Missing > 0)
            {
                _gathering[item.Name] = entry;
                return;
            }

            _gathering.Remove(item.Name);
        }

        PackedPlace packing = item.Packing!;
        byte[][] packed = packing.Matrix.Pack(rows);
        for (int i = 0; i < packed.Length; i++)
        {
            TensorPlace place = packing.Places[i];
            files[place.FileIndex].Write(place.Tensor.ByteOffset, packed[i]);
            files[place.FileIndex].StartWriteBack(place.Tensor.ByteOffset, packed[i].Length);
        }
    }
}
