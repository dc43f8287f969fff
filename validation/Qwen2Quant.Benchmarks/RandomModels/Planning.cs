using System.Buffers;
using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Benchmarks.RandomModels;

/// <summary>Lays tensors out in safetensors shards or in one GGUF file.</summary>
internal static class Planning
{
    private const int GgufAlignment = 32;

    /// <summary>The shards, and the bytes of <c>model.safetensors.index.json</c>, null where one file holds all.</summary>
    public static (IReadOnlyList<PlannedFile> Files, byte[]? Index) Safetensors(IReadOnlyList<OutputTensor> tensors, long maxShardBytes)
    {
        List<List<OutputTensor>> shards = [];
        long used = 0;
        foreach (OutputTensor tensor in tensors)
        {
            if (shards.Count == 0 || used + tensor.ByteLength > maxShardBytes)
            {
                shards.Add([]);
                used = 0;
            }

            shards[^1].Add(tensor);
            used += tensor.ByteLength;
        }

        PlannedFile[] files = [.. shards.Select((shard, i) => SafetensorsFile(Name(i), shard))];
        return (files, files.Length == 1 ? null : Index(files));

        string Name(int i) => shards.Count == 1
            ? "model.safetensors"
            : string.Create(CultureInfo.InvariantCulture, $"model-{i + 1:D5}-of-{shards.Count:D5}.safetensors");
    }

    /// <param name="metadata">Values are <see cref="string"/>, <see cref="uint"/>, <see cref="float"/>, <see cref="bool"/>, string[] or int[].</param>
    public static PlannedFile Gguf(IReadOnlyList<KeyValuePair<string, object>> metadata, IReadOnlyList<OutputTensor> tensors, string fileName)
    {
        using MemoryStream stream = new();
        using BinaryWriter writer = new(stream);
        writer.Write("GGUF"u8);
        writer.Write(3u);
        writer.Write((long)tensors.Count);
        writer.Write((long)metadata.Count);
        foreach ((string key, object value) in metadata)
        {
            WriteString(writer, key);
            WriteValue(writer, value);
        }

        long offset = 0;
        long[] offsets = new long[tensors.Count];
        for (int i = 0; i < offsets.Length; i++)
        {
            OutputTensor tensor = tensors[i];
            offsets[i] = offset;
            WriteString(writer, tensor.Name);
            writer.Write(tensor.Shape.Rank);
            for (int dimension = tensor.Shape.Rank - 1; dimension >= 0; dimension--) writer.Write(tensor.Shape[dimension]);
            writer.Write(GgmlTypes.Of(tensor.Type)!.Id);
            writer.Write(offset);
            if (!CheckedMath.TryAlign(offset + tensor.ByteLength, GgufAlignment, out offset)) throw new OverflowException();
        }

        CheckedMath.TryAlign(stream.Length, GgufAlignment, out long headerLength);
        stream.SetLength(headerLength);
        return new PlannedFile(fileName, stream.ToArray(), headerLength + offset, [.. tensors.Select((tensor, i) => new PlannedTensor(tensor, headerLength + offsets[i]))]);
    }

    private static void WriteString(BinaryWriter writer, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        writer.Write((long)bytes.Length);
        writer.Write(bytes);
    }

    private static void WriteValue(BinaryWriter writer, object value)
    {
        switch (value)
        {
            case uint number:
                writer.Write(4);
                writer.Write(number);
                break;
            case float number:
                writer.Write(6);
                writer.Write(number);
                break;
            case bool flag:
                writer.Write(7);
                writer.Write(flag);
                break;
            case string text:
                writer.Write(8);
                WriteString(writer, text);
                break;
            case string[] texts:
                writer.Write(9);
                writer.Write(8);
                writer.Write((long)texts.Length);
                foreach (string text in texts) WriteString(writer, text);
                break;
            case int[] numbers:
                writer.Write(9);
                writer.Write(5);
                writer.Write((long)numbers.Length);
                foreach (int number in numbers) writer.Write(number);
                break;
            default:
                throw new ArgumentException($"no GGUF value for {value.GetType().Name}", nameof(value));
        }
    }

    private static PlannedFile SafetensorsFile(string name, List<OutputTensor> tensors)
    {
        ArrayBufferWriter<byte> json = new();
        using (Utf8JsonWriter writer = new(json))
        {
            writer.WriteStartObject();
            writer.WriteStartObject("__metadata__");
            writer.WriteString("format", "pt");
            writer.WriteEndObject();
            long offset = 0;
            foreach (OutputTensor tensor in tensors)
            {
                writer.WriteStartObject(tensor.Name);
                writer.WriteString("dtype", tensor.Type.Name);
                writer.WriteStartArray("shape");
                foreach (long dimension in tensor.Shape.Dimensions) writer.WriteNumberValue(dimension);
                writer.WriteEndArray();
                writer.WriteStartArray("data_offsets");
                writer.WriteNumberValue(offset);
                writer.WriteNumberValue(offset += tensor.ByteLength);
                writer.WriteEndArray();
                writer.WriteEndObject();
            }

            writer.WriteEndObject();
        }

        int jsonLength = (json.WrittenCount + 7) & ~7;
        byte[] header = new byte[8 + jsonLength];
        BinaryPrimitives.WriteInt64LittleEndian(header, jsonLength);
        header.AsSpan(8).Fill((byte)' ');
        json.WrittenSpan.CopyTo(header.AsSpan(8));
        List<PlannedTensor> planned = [];
        long position = header.Length;
        foreach (OutputTensor tensor in tensors)
        {
            planned.Add(new PlannedTensor(tensor, position));
            position += tensor.ByteLength;
        }

        return new PlannedFile(name, header, position, planned);
    }

    private static byte[] Index(PlannedFile[] files)
    {
        ArrayBufferWriter<byte> json = new();
        using (Utf8JsonWriter writer = new(json, new JsonWriterOptions { Indented = true }))
        {
            writer.WriteStartObject();
            writer.WriteStartObject("metadata");
            writer.WriteNumber("total_size", files.Sum(file => file.Tensors.Sum(planned => planned.Tensor.ByteLength)));
            writer.WriteEndObject();
            writer.WriteStartObject("weight_map");
            foreach (PlannedFile file in files)
            {
                foreach (PlannedTensor planned in file.Tensors) writer.WriteString(planned.Tensor.Name, file.Name);
            }

            writer.WriteEndObject();
            writer.WriteEndObject();
        }

        return json.WrittenSpan.ToArray();
    }
}
