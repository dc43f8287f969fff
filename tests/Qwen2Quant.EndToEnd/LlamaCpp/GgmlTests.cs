using System.Runtime.InteropServices;
using System.Text.Json;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.LlamaCpp;

/// <summary>The wrapper calls ggml as it says: sizes, decoding and encoding equal vectors made by other software.</summary>
public sealed class GgmlTests
{
    [LlamaFact(Shared = true)]
    public void SizesAndNamesAreThoseOfTheGoldenIndex()
    {
        foreach (GoldenType type in GoldenIndex())
        {
            Assert.Equal(type.Name, Ggml.TypeName(type.Id), ignoreCase: true);
            Assert.Equal((type.Name, type.ValuesPerBlock, type.BytesPerBlock), (type.Name, Ggml.ValuesPerBlock(type.Id), Ggml.BytesPerBlock(type.Id)));
        }
    }

    [LlamaFact(Shared = true)]
    public void DecodesEveryTypeAsTheGoldenBlocks()
    {
        List<string> different = [];
        foreach (GoldenType type in GoldenIndex())
        {
            float[] decoded = Ggml.Dequantize(type.Id, GoldenBytes($"{type.Name}.bin"));
            if (!MemoryMarshal.AsBytes<float>(decoded).SequenceEqual(GoldenBytes($"{type.Name}.f32"))) different.Add(type.Name);
        }

        Assert.Empty(different);
    }

    [LlamaFact(Shared = true)]
    public void EncodesAsTheGoldenBlocks()
    {
        List<string> different = [];
        int compared = 0;
        foreach (GoldenType type in GoldenIndex().Where(type => type.EncodeRows > 0))
        {
            byte[] input = GoldenBytes($"{type.Name}.enc.f32");
            byte[] encoded = Ggml.Quantize(type.Id, MemoryMarshal.Cast<byte, float>(input), type.EncodeRows, type.EncodeColumns);
            if (!encoded.AsSpan().SequenceEqual(GoldenBytes($"{type.Name}.enc.bin"))) different.Add(type.Name);
            compared++;
        }

        Assert.Empty(different);
        Assert.NotEqual(0, compared);
    }

    [LlamaFact]
    public void AnImatrixChangesCodesAndIsDemandedByTheSmallestTypes()
    {
        const int q4K = 12, iq2Xxs = 16, columns = 256;
        Random random = new(7);
        float[] values = new float[columns], even = new float[columns], steep = new float[columns];
        for (int i = 0; i < columns; i++)
        {
            values[i] = (float)(random.NextDouble() - 0.5);
            even[i] = 1;
            steep[i] = i < 8 ? 1000 : 0.001f;
        }

        Assert.NotEqual(Ggml.Quantize(q4K, values, 1, columns, even), Ggml.Quantize(q4K, values, 1, columns, steep));
        Assert.True(Ggml.RequiresImatrix(iq2Xxs));
        Assert.Throws<ArgumentException>(() => Ggml.Quantize(iq2Xxs, values, 1, columns));
        Assert.Equal(Ggml.BytesPerBlock(iq2Xxs), Ggml.Quantize(iq2Xxs, values, 1, columns, even).Length);
    }

    private static IEnumerable<GoldenType> GoldenIndex()
    {
        using JsonDocument index = JsonDocument.Parse(GoldenBytes("index.json"));
        foreach (JsonElement row in index.RootElement.EnumerateArray())
        {
            int Number(string key) => row.TryGetProperty(key, out JsonElement value) ? value.GetInt32() : 0;
            yield return new GoldenType(row.GetProperty("type").GetString()!, Number("id"), Number("values"), Number("bytes"), Number("encode_rows"), Number("encode_columns"));
        }
    }

    private static byte[] GoldenBytes(string name) => File.ReadAllBytes(SharedData.Path(Path.Combine("data", "golden-blocks", name)));

    private sealed record GoldenType(string Name, int Id, int ValuesPerBlock, int BytesPerBlock, int EncodeRows, int EncodeColumns);
}
