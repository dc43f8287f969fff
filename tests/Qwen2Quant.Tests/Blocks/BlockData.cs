using Qwen2Quant.Core.Encoding;
using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Tests.Blocks;

/// <summary>Golden blocks (made by ggml and gguf-py) and the generators of the golden hashes.</summary>
internal static class BlockData
{
    private static readonly string Folder = FindFolder();

    public static BlockType[] BlockTypes { get; } = [.. GgmlTypes.All.Select(type => type.Element).OfType<BlockType>()];

    public static ElementType Element(string name) => GgmlTypes.Find(name)!.Element;

    public static BlockType Block(string name) => (BlockType)Element(name);

    public static bool Has(string file) => File.Exists(Path.Combine(Folder, file));

    public static byte[] Bytes(string file) => File.ReadAllBytes(Path.Combine(Folder, file));

    public static float[] Floats(string file) => MemoryMarshal.Cast<byte, float>(Bytes(file)).ToArray();

    public static string Hash(ReadOnlySpan<byte> bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes));

    public static string Hash(float[] values) => Hash(MemoryMarshal.AsBytes<float>(values));

    public static uint Next(ref uint state) => state = (state * 1664525) + 1013904223;

    /// <summary>Rows of 512 values of 2^-27 steps below 1/16 in magnitude, every 61st four times larger.</summary>
    public static float[] Values(int count)
    {
        uint state = 12345;
        float[] values = new float[count];
        for (int i = 0; i < count; i++)
        {
            int step = (int)(Next(ref state) >> 8) - (1 << 23);
            values[i] = step * MathF.ScaleB(1, -27) * (i % 61 == 7 ? 4 : 1);
        }

        return values;
    }

    /// <summary>One positive weight for each of 512 columns.</summary>
    public static float[] Importance()
    {
        uint state = 777;
        float[] weights = new float[512];
        for (int i = 0; i < weights.Length; i++) weights[i] = ((Next(ref state) >> 8) + 1) * MathF.ScaleB(1, -24);
        return weights;
    }

    /// <summary>Blocks of random bytes whose half fields are made finite and positive.</summary>
    public static byte[] RandomBlocks(ElementType type, int blockCount, uint seed)
    {
        byte[] blocks = new byte[blockCount * type.BytesPerBlock];
        for (int i = 0; i < blocks.Length; i++) blocks[i] = (byte)(Next(ref seed) >> 24);
        for (int start = 0; start < blocks.Length; start += type.BytesPerBlock)
        {
            Span<byte> block = blocks.AsSpan(start, type.BytesPerBlock);
            foreach (int offset in HalfOffsets(type.Name)) block[offset + 1] = (byte)(0x2c | (block[offset + 1] & 3));
            if (type.Name == "MXFP4") block[0] = (byte)(120 + (block[0] & 7));
            if (type.Name == "IQ1_M") block[^1] = (byte)((block[^1] & 15) | 0x20);
            if (type.Name == "Q8_K") BinaryPrimitives.WriteSingleLittleEndian(block, 0.125f);
        }

        return blocks;
    }

    public static byte[] Encode(ElementType type, float[] rows, int rowLength, float[] importance, Effort effort = Effort.Reference)
    {
        byte[] encoded = new byte[type.ByteCount(rows.Length)];
        int rowBytes = (int)type.ByteCount(rowLength);
        for (int row = 0; row < rows.Length / rowLength; row++) type.EncodeRow(rows.AsSpan(row * rowLength, rowLength), importance, effort, encoded.AsSpan(row * rowBytes, rowBytes));
        return encoded;
    }

    public static void AssertSameBits(ReadOnlySpan<float> expected, ReadOnlySpan<float> actual, string what)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (int i = 0; i < expected.Length; i++)
        {
            uint wanted = BitConverter.SingleToUInt32Bits(expected[i]);
            uint found = BitConverter.SingleToUInt32Bits(actual[i]);
            if (wanted != found) Assert.Fail(string.Create(CultureInfo.InvariantCulture, $"{what}: value {i} is {actual[i]:r} (0x{found:x8}), expected {expected[i]:r} (0x{wanted:x8})"));
        }
    }

    public static void AssertSameBytes(ReadOnlySpan<byte> expected, ReadOnlySpan<byte> actual, string what)
    {
        int common = expected.CommonPrefixLength(actual);
        if (common != expected.Length || common != actual.Length) Assert.Fail($"{what}: bytes differ from {common} on, of {expected.Length} and {actual.Length}");
    }

    private static int[] HalfOffsets(string name) => name switch
    {
        "Q4_0" or "Q5_0" or "Q8_0" or "IQ4_NL" or "IQ4_XS" or "Q1_0" or "Q2_0" or "IQ2_XXS" or "IQ2_XS" or "IQ2_S" or "IQ3_XXS" or "IQ3_S" or "IQ1_S" => [0],
        "Q4_1" or "Q5_1" or "Q8_1" or "Q4_K" or "Q5_K" => [0, 2],
        "Q2_K" => [80, 82],
        "Q3_K" => [108],
        "Q6_K" => [208],
        "TQ1_0" => [52],
        "TQ2_0" => [64],
        _ => [],
    };

    private static string FindFolder()
    {
        string folder = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(folder, "Qwen2Quant.sln"))) folder = Path.GetDirectoryName(folder) ?? throw new InvalidOperationException("no solution above the tests");
        return Path.Combine(folder, "tests", "Qwen2Quant.Tests", "Blocks", "Data");
    }
}
