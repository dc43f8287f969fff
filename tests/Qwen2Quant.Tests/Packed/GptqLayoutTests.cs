using System.Runtime.InteropServices;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Gptq;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Packed;

/// <summary>Packing and unpacking: exact inverses, on what GPTQModel wrote and against the definition of the layout.</summary>
public class GptqLayoutTests
{
    public static TheoryData<string> Goldens =>
    [
        "gptqmodel-g128-4bit-actorder", "gptqmodel-g128-4bit-asym", "gptqmodel-g32-3bit", "gptqmodel-g64-8bit", "gptqmodel-moe-g128-4bit",
    ];

    /// <summary>Every packed module of a golden checkpoint is unpacked to rows, in pieces and with its columns in another order inside their groups, and packed again.</summary>
    [SharedTheory]
    [MemberData(nameof(Goldens))]
    public void EveryByteOfAGoldenComesBack(string folder)
    {
        string path = SharedData.Path($"models/golden/{folder}");
        using SafetensorsCheckpoint raw = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, path, new ReadOptions());
        using SafetensorsCheckpoint second = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, path, new ReadOptions());
        GptqSettings settings = GptqRuleTests.Settings(File.ReadAllText(Path.Combine(path, "quantize_config.json")));
        using PackedCheckpoint view = PackedCheckpoint.Over(second, new GptqModules(second, settings, path), path);
        GptqModules modules = new(raw, settings, path);
        int count = 0;
        bool anyPermuted = false;
        foreach (TensorEntry codes in raw.Tensors.Where(entry => entry.Name.EndsWith(".qweight", StringComparison.Ordinal)))
        {
            GptqLinear linear = modules.Read(codes.Name[..^".qweight".Length]);
            anyPermuted |= linear.ColumnOrder is not null;
            TensorEntry stored = view.FindStored(linear.Name + ".weight")!;
            Assert.Same(linear.Type, stored.Type);
            byte[] rows = new byte[stored.ByteLength];
            for (int at = 0; at < rows.Length; at += 1001) view.ReadRaw(stored, at, rows.AsSpan(at, Math.Min(1001, rows.Length - at)));
            MemoryParts parts = new(linear.Name, linear.Type, linear.Shape);
            int[] order = linear.ColumnOrder is null ? [] : Swap(linear, rows);
            parts.Write(settings.IsV2, rows, order, rowsAtOnce: 64);
            foreach (string suffix in new[] { ".qweight", ".qzeros", ".scales", ".g_idx" })
            {
                TensorEntry entry = raw.Find(linear.Name + suffix)!;
                byte[] expected = new byte[entry.ByteLength];
                raw.ReadRaw(entry, 0, expected);
                Assert.Equal(expected, parts[suffix]);
            }

            count++;
        }

        Assert.True(count >= 21);
        Assert.Equal(folder.EndsWith("actorder", StringComparison.Ordinal), anyPermuted);
    }

    /// <summary>Each field where quant-formats 1.2 and 1.4 say, by shifts alone.</summary>
    [Theory]
    [InlineData(2, 32, false, false)]
    [InlineData(4, 64, false, false)]
    [InlineData(4, 128, true, true)]
    [InlineData(4, 128, false, true)]
    [InlineData(8, 64, true, false)]
    [InlineData(3, 32, false, false)]
    public void FieldsLieWhereTheLayoutSays(int bits, int group, bool isSymmetric, bool isV2)
    {
        const int outputs = 96, inputs = 256;
        IntegerGridType type = IntegerGridType.Of(bits, group, isSymmetric, PlainTypes.F16, isV2 ? 0 : 1);
        byte[] rows = new byte[type.ByteCount(outputs * inputs)];
        new Random(bits).NextBytes(rows);
        for (int block = 0; !isSymmetric && block < rows.Length; block += type.BytesPerBlock) rows[block + 2] = (byte)((rows[block + 2] % ((1 << bits) - 1)) + 1);
        MemoryParts parts = new("m", type, new Shape(outputs, inputs));
        parts.Write(isV2, rows.ToArray(), [], rowsAtOnce: 32);
        byte[] codes = new byte[group];
        float[] parameters = new float[2];
        for (int output = 0; output < outputs; output++)
        {
            for (int g = 0; g < inputs / group; g++)
            {
                ReadOnlySpan<byte> block = rows.AsSpan(((output * inputs / group) + g) * type.BytesPerBlock, type.BytesPerBlock);
                type.Unpack(block, codes, parameters);
                Assert.Equal(BitConverter.ToUInt16(block), BitConverter.ToUInt16(parts[".scales"], ((g * outputs) + output) * 2));
                int zero = isSymmetric ? 1 << (bits - 1) : (int)parameters[1];
                Assert.Equal(isV2 ? zero : zero - 1, Field(parts[".qzeros"], bits, position => (g * outputs * bits / 32) + position, output));
                for (int i = 0; i < group; i++) Assert.Equal(codes[i], Field(parts[".qweight"], bits, position => (position * outputs) + output, (g * group) + i));
            }
        }

        for (int input = 0; input < inputs; input++) Assert.Equal(input / group, BitConverter.ToInt32(parts[".g_idx"], input * 4));
    }

    [Fact]
    public void SymmetricZerosAreTheWordsThatEnginesExpect()
    {
        foreach ((int bits, uint[] words) in new (int, uint[])[] { (2, [0x55555555]), (3, [0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D]), (4, [0x77777777]), (8, [0x7F7F7F7F]) })
        {
            IntegerGridType type = IntegerGridType.Of(bits, 32, true, PlainTypes.F16);
            MemoryParts parts = new("m", type, new Shape(32, 32));
            parts.Write(isV2: false, new byte[type.ByteCount(32 * 32)], [], rowsAtOnce: 32);
            uint[] found = MemoryMarshal.Cast<byte, uint>(parts[".qzeros"]).ToArray();
            for (int i = 0; i < found.Length; i++) Assert.Equal(words[i % words.Length], found[i]);
        }
    }

    /// <summary>Field k of a stream of words, wherever each word lies.</summary>
    private static int Field(byte[] bytes, int bits, Func<int, int> wordAt, int k)
    {
        int field = 0;
        for (int b = 0; b < bits; b++)
        {
            int position = (k * bits) + b;
            field |= (int)((BitConverter.ToUInt32(bytes, wordAt(position / 32) * 4) >> (position % 32)) & 1) << b;
        }

        return field;
    }

    /// <summary>Swaps neighbours inside each group, as a solver that visits them by activation may hold them, and returns the order.</summary>
    private static int[] Swap(GptqLinear linear, byte[] rows)
    {
        int[] from = [.. Enumerable.Range(0, linear.RowLength).Select(place => place ^ 1)];
        int rowBytes = (int)linear.Type.ByteCount(linear.RowLength);
        for (int row = 0; row < linear.RowCount; row++) GptqWords.Permute(linear.Type, rows.AsSpan(row * rowBytes, rowBytes), from, new byte[2 * linear.RowLength]);
        return [.. from.Select(place => linear.ColumnOrder![place])];
    }

    /// <summary>The four tensors of one module, each a file in memory.</summary>
    private sealed class MemoryParts(string module, IntegerGridType type, Shape shape)
    {
        private readonly OutputTensor[] _tensors = GptqLinear.Parts(module, type, shape);
        private readonly MemoryWriteFile[] _files = [.. GptqLinear.Parts(module, type, shape).Select(tensor => new MemoryWriteFile((int)tensor.ByteLength))];

        public byte[] this[string suffix] => _files[Array.FindIndex(_tensors, tensor => tensor.Name == module + suffix)].Bytes;

        public void Write(bool isV2, byte[] rows, int[] order, int rowsAtOnce)
        {
            GptqTarget target = new(type, shape, isV2, [.. _tensors.Select((tensor, i) => (i, new PlannedTensor(tensor, 0)))]);
            Assert.Equal(_files.Sum(file => file.Bytes.Length), target.ByteLength);
            int rowBytes = (int)type.ByteCount(shape[1]);
            for (int row = 0; row < shape[0]; row += rowsAtOnce) target.Write(_files, row, rows.AsSpan(row * rowBytes, rowsAtOnce * rowBytes), order);
        }
    }
}
