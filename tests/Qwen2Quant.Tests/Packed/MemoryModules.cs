using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Tests.Packed;

/// <summary>Tensors of a container in memory, zero unless filled.</summary>
internal sealed class MemoryModules : ITensorSource
{
    private readonly List<TensorEntry> _entries = [];
    private readonly Dictionary<string, byte[]> _bytes = new(StringComparer.Ordinal);

    public IReadOnlyList<TensorEntry> Tensors => _entries;

    public MemoryModules With(string name, ElementType type, params long[] dimensions)
    {
        Without(name);
        _entries.Add(new TensorEntry(name, type, new Shape(dimensions), 0));
        _bytes[name] = new byte[_entries[^1].ByteLength];
        return this;
    }

    public MemoryModules Without(string name)
    {
        _entries.RemoveAll(entry => entry.Name == name);
        return this;
    }

    public void Fill(string name, Func<int, byte> value)
    {
        for (int i = 0; i < _bytes[name].Length; i++) _bytes[name][i] = value(i);
    }

    public TensorEntry? Find(string name) => _entries.Find(entry => entry.Name == name);

    public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination) => _bytes[entry.Name].AsSpan((int)(entry.ByteOffset + byteOffset), destination.Length).CopyTo(destination);

    public void Dispose()
    {
    }
}
