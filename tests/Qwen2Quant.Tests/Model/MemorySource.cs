using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text.Json;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

/// <summary>Tensors in one array of bytes.</summary>
internal sealed class MemorySource(byte[] bytes, IReadOnlyList<TensorEntry> tensors) : ITensorSource
{
    private readonly Dictionary<string, TensorEntry> _byName = tensors.ToDictionary(entry => entry.Name, StringComparer.Ordinal);

    public IReadOnlyList<TensorEntry> Tensors => tensors;

    public TensorEntry? Find(string name) => _byName.GetValueOrDefault(name);

    public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination) =>
        bytes.AsSpan(checked((int)(entry.ByteOffset + byteOffset)), destination.Length).CopyTo(destination);

    public void Dispose()
    {
    }

    public static MemorySource Of(IEnumerable<(string Name, Shape Shape, float[] Values)> tensors)
    {
        List<TensorEntry> entries = [];
        MemoryStream stream = new();
        foreach ((string name, Shape shape, float[] values) in tensors)
        {
            entries.Add(new TensorEntry(name, PlainTypes.F32, shape, stream.Length));
            stream.Write(MemoryMarshal.AsBytes(values.AsSpan()));
        }

        return new MemorySource(stream.ToArray(), entries);
    }

    /// <summary>Weights of about the size that trained models have, norms around one, every bias there.</summary>
    public static MemorySource Random(Qwen2Config config, int seed)
    {
        Random random = new(seed);
        return Of(TensorCatalogue.For(config).Tensors.Select(tensor =>
        {
            double scale = tensor.Shape.Rank == 1 ? 0.3 : 1.5 / Math.Sqrt(tensor.Shape.RowLength);
            double offset = tensor.Role is TensorRole.AttentionNorm or TensorRole.FfnNorm or TensorRole.OutputNorm ? 1 : 0;
            float[] values = new float[tensor.Shape.ValueCount];
            for (int i = 0; i < values.Length; i++) values[i] = (float)(offset + (scale * ((2 * random.NextDouble()) - 1)));
            return (tensor.Name, tensor.Shape, values);
        }));
    }

    /// <summary>A safetensors file of BF16 or F32 tensors, trusted.</summary>
    public static MemorySource Safetensors(string path)
    {
        byte[] bytes = File.ReadAllBytes(path);
        int headerLength = (int)BinaryPrimitives.ReadInt64LittleEndian(bytes);
        using JsonDocument header = JsonDocument.Parse(bytes.AsMemory(8, headerLength));
        List<TensorEntry> entries = [];
        foreach (JsonProperty tensor in header.RootElement.EnumerateObject().Where(tensor => tensor.Name != "__metadata__"))
        {
            long[] shape = [.. tensor.Value.GetProperty("shape").EnumerateArray().Select(size => size.GetInt64())];
            ElementType type = tensor.Value.GetProperty("dtype").GetString() == "BF16" ? PlainTypes.BF16 : PlainTypes.F32;
            entries.Add(new TensorEntry(tensor.Name, type, new Shape(shape), 8 + headerLength + tensor.Value.GetProperty("data_offsets")[0].GetInt64()));
        }

        return new MemorySource(bytes, entries);
    }
}
