using System.Buffers.Binary;
using System.Text.Json;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;

namespace Qwen2Quant.Tests.Safetensors;

/// <summary>What an accepted file says, read a second time by a general JSON parser.</summary>
internal static class Oracle
{
    public static void CheckEqual(byte[] bytes, SafetensorsFile file)
    {
        int headerLength = (int)BinaryPrimitives.ReadUInt64LittleEndian(bytes);
        using JsonDocument header = JsonDocument.Parse(bytes.AsMemory(8, headerLength));
        JsonProperty[] members = [.. header.RootElement.EnumerateObject()];
        JsonProperty[] entries = [.. members.Where(static member => member.Name != "__metadata__")];
        Assert.Equal(8 + headerLength, file.DataByteOffset);
        Assert.Equal(entries.Length, file.Tensors.Count);
        Assert.Equal(members.Length - entries.Length == 0 ? 0 : members.First(static member => member.Name == "__metadata__").Value.EnumerateObject().Count(), file.Metadata.Count);
        foreach (JsonProperty entry in entries)
        {
            TensorEntry tensor = Assert.IsType<TensorEntry>(file.Find(entry.Name));
            long[] offsets = [.. entry.Value.GetProperty("data_offsets").EnumerateArray().Select(static value => value.GetInt64())];
            Assert.Equal(entry.Value.GetProperty("dtype").GetString(), tensor.Type.Name);
            Assert.Equal(entry.Value.GetProperty("shape").EnumerateArray().Select(static value => value.GetInt64()), tensor.Shape.Dimensions.ToArray());
            Assert.Equal(offsets[0], tensor.ByteOffset - file.DataByteOffset);
            Assert.Equal(offsets[1], tensor.ByteOffset - file.DataByteOffset + tensor.ByteLength);
        }

        long end = file.DataByteOffset;
        foreach (TensorEntry tensor in file.Tensors)
        {
            Assert.Equal(end, tensor.ByteOffset);
            end += tensor.ByteLength;
        }

        Assert.Equal(bytes.Length, end);
    }
}
