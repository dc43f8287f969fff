using System.Buffers;
using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>
/// The files of a safetensors checkpoint, complete but for the tensors' bytes: every header, every offset, the index.
/// </summary>
/// <remarks>
/// Tensors are dealt to shards in the order given, as Hugging Face does (<c>split_state_dict_into_shards_factory</c>): a shard is closed
/// when the next tensor would exceed the limit, and a tensor above the limit is a shard of its own at once. Inside a file they lie as the
/// reference writer orders them, by falling <see cref="SafetensorsDtype.Order"/> and then by name, so that the data of every one is
/// aligned to its values; the header lists them so, after the metadata by key, and is padded with spaces to 8 bytes.
/// </remarks>
public sealed class SafetensorsPlan
{
    /// <summary>Bytes of tensor data in a shard that the ecosystem is used to.</summary>
    public const long DefaultShardBytes = 5_000_000_000;

    public const string SingleFileName = "model.safetensors";
    public const string IndexFileName = "model.safetensors.index.json";

    private static readonly JsonWriterOptions IndexFormat = new() { Indented = true, NewLine = "\n", Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private SafetensorsPlan(PlannedFile[] files, byte[]? index)
    {
        Files = files;
        Index = index;
    }

    /// <summary>One file <c>model.safetensors</c>, or <c>model-00001-of-0000N.safetensors</c> and on.</summary>
    public IReadOnlyList<PlannedFile> Files { get; }

    /// <summary>The bytes of <see cref="IndexFileName"/>; null for a single file, which has none.</summary>
    public byte[]? Index { get; }

    /// <param name="metadata">Strings of <c>__metadata__</c>, the same in every file; none is written when it is empty.</param>
    /// <param name="maxShardBytes">Most bytes of tensor data in one file, headers not counted.</param>
    /// <param name="parameterCount"><c>total_parameters</c> of the index, which mlx-lm writes; null for none.</param>
    /// <exception cref="QuantException">The tensors cannot stand in a file that keeps <see cref="SafetensorsRules"/>.</exception>
    public static SafetensorsPlan Create(IReadOnlyList<OutputTensor> tensors, IReadOnlyDictionary<string, string> metadata, long maxShardBytes, long? parameterCount = null)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(maxShardBytes);
        SafetensorsOutputCheck.Check(tensors, metadata);
        List<List<OutputTensor>> shards = Deal(tensors, maxShardBytes);
        PlannedFile[] files = [.. shards.Select((shard, i) => SafetensorsHeaderWriter.Plan(FileName(i, shards.Count), shard, metadata))];
        return new SafetensorsPlan(files, files.Length == 1 ? null : WriteIndex(files, parameterCount));
    }

    private static List<List<OutputTensor>> Deal(IReadOnlyList<OutputTensor> tensors, long maxShardBytes)
    {
        List<List<OutputTensor>> shards = [];
        List<OutputTensor> current = [];
        long currentBytes = 0;
        foreach (OutputTensor tensor in tensors)
        {
            long byteLength = tensor.ByteLength;
            if (byteLength > maxShardBytes)
            {
                shards.Add([tensor]);
                continue;
            }

            if (byteLength > maxShardBytes - currentBytes)
            {
                shards.Add(current);
                current = [];
                currentBytes = 0;
            }

            current.Add(tensor);
            currentBytes += byteLength;
        }

        if (current.Count > 0 || shards.Count == 0) shards.Add(current);
        return shards;
    }

    private static string FileName(int index, int count) => count == 1
        ? SingleFileName
        : string.Create(CultureInfo.InvariantCulture, $"model-{index + 1:D5}-of-{count:D5}.safetensors");

    private static byte[] WriteIndex(PlannedFile[] files, long? parameterCount)
    {
        ArrayBufferWriter<byte> buffer = new();
        using (Utf8JsonWriter writer = new(buffer, IndexFormat))
        {
            writer.WriteStartObject();
            writer.WriteStartObject("metadata");
            writer.WriteNumber("total_size", files.Sum(static file => file.ByteLength - file.Header.Length));
            if (parameterCount is { } count) writer.WriteNumber("total_parameters", count);
            writer.WriteEndObject();
            writer.WriteStartObject("weight_map");
            foreach ((string name, string file) in files
                .SelectMany(static file => file.Tensors.Select(tensor => (tensor.Tensor.Name, File: file.Name)))
                .OrderBy(static pair => pair.Name, CodePointOrder.Instance))
            {
                writer.WriteString(name, file);
            }

            writer.WriteEndObject();
            writer.WriteEndObject();
        }

        buffer.Write("\n"u8);
        return buffer.WrittenSpan.ToArray();
    }
}
