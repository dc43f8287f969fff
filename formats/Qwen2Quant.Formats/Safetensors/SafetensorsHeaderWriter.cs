using System.Buffers;
using System.Buffers.Binary;
using System.Text.Encodings.Web;
using System.Text.Json;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>Writes the header of one file.</summary>
internal static class SafetensorsHeaderWriter
{
    private const int Alignment = 8;

    private static readonly JsonWriterOptions Format = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Lays out checked tensors: orders them, gives each its offset, and writes the length field, the JSON and the padding.</summary>
    public static PlannedFile Plan(string fileName, IReadOnlyList<OutputTensor> tensors, IReadOnlyDictionary<string, string> metadata)
    {
        OutputTensor[] ordered = [.. tensors
            .Select(static tensor => (tensor, SafetensorsDtypes.Of(tensor.Type)!.Order))
            .OrderByDescending(static pair => pair.Order)
            .ThenBy(static pair => pair.tensor.Name, CodePointOrder.Instance)
            .Select(static pair => pair.tensor)];
        byte[] header = Write(ordered, metadata);
        if (header.Length - SafetensorsHeaderParser.HeaderByteOffset > Limits.Default.HeaderBytes)
        {
            throw new QuantException(ErrorKind.Resource, "the header would exceed the format's limit")
            {
                Rule = SafetensorsRules.HeaderWithinLimit,
                Path = fileName,
                Found = $"{header.Length} bytes for {ordered.Length} tensors",
                Expected = $"at most {Limits.Default.HeaderBytes} bytes",
                Remedy = "Write smaller shards.",
            };
        }

        PlannedTensor[] planned = new PlannedTensor[ordered.Length];
        long byteOffset = header.Length;
        for (int i = 0; i < ordered.Length; i++)
        {
            planned[i] = new PlannedTensor(ordered[i], byteOffset);
            byteOffset += ordered[i].ByteLength;
        }

        return new PlannedFile(fileName, header, byteOffset, planned);
    }

    private static byte[] Write(OutputTensor[] tensors, IReadOnlyDictionary<string, string> metadata)
    {
        ArrayBufferWriter<byte> buffer = new();
        buffer.Write(stackalloc byte[SafetensorsHeaderParser.HeaderByteOffset]);
        using (Utf8JsonWriter writer = new(buffer, Format))
        {
            writer.WriteStartObject();
            WriteMetadata(writer, metadata);
            long begin = 0;
            foreach (OutputTensor tensor in tensors)
            {
                long end = begin + tensor.ByteLength;
                WriteEntry(writer, tensor, begin, end);
                begin = end;
            }

            writer.WriteEndObject();
        }

        int padding = -buffer.WrittenCount & (Alignment - 1);
        buffer.GetSpan(padding)[..padding].Fill((byte)' ');
        buffer.Advance(padding);
        byte[] header = buffer.WrittenSpan.ToArray();
        BinaryPrimitives.WriteInt64LittleEndian(header, header.Length - SafetensorsHeaderParser.HeaderByteOffset);
        return header;
    }

    private static void WriteMetadata(Utf8JsonWriter writer, IReadOnlyDictionary<string, string> metadata)
    {
        if (metadata.Count == 0) return;
        writer.WriteStartObject("__metadata__"u8);
        foreach ((string key, string value) in metadata.OrderBy(static pair => pair.Key, CodePointOrder.Instance)) writer.WriteString(key, value);
        writer.WriteEndObject();
    }

    private static void WriteEntry(Utf8JsonWriter writer, OutputTensor tensor, long begin, long end)
    {
        writer.WriteStartObject(tensor.Name);
        writer.WriteString("dtype"u8, SafetensorsDtypes.Of(tensor.Type)!.Name);
        writer.WriteStartArray("shape"u8);
        foreach (long dimension in tensor.Shape.Dimensions) writer.WriteNumberValue(dimension);
        writer.WriteEndArray();
        writer.WriteStartArray("data_offsets"u8);
        writer.WriteNumberValue(begin);
        writer.WriteNumberValue(end);
        writer.WriteEndArray();
        writer.WriteEndObject();
    }
}
