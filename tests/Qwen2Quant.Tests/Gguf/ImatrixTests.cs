using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Gguf;

/// <summary>Importance matrices in both formats.</summary>
public sealed class ImatrixTests
{
    /// <summary>A plain matrix and a stack of three experts, the second without tokens.</summary>
    internal static Imatrix Sample { get; } = new(
        [new ImatrixEntry("blk.0.attn_q.weight", [1024, 0, 2048.5f, 3], [1024]), new ImatrixEntry("blk.0.ffn_up_exps.weight", [100, 200, 0, 0, 5, 6], [100, 0, 924])],
        ["calibration.txt", "more.txt"], 2, 512);

    [Fact]
    public void GgufGivesBackWhatWasWritten()
    {
        Imatrix read = Read(ImatrixWriter.Write(Sample, ImatrixFormat.Gguf, "x"));
        AssertSame(Sample, read);
        Assert.Equal(Sample.Datasets, read.Datasets);
        Assert.Equal((2, 512), (read.ChunkCount, read.ChunkSize));
    }

    [Fact]
    public void GgufIsLaidOutAsLlamaImatrixDoes()
    {
        byte[] bytes = ImatrixWriter.Write(Sample, ImatrixFormat.Gguf, "x");
        using GgufFile file = GgufFile.Open(new MemoryReadFile("x", bytes), new ReadOptions());
        Assert.Equal(["general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"], file.Metadata.Select(pair => pair.Key));
        Assert.Equal((GgufValueType.UInt32, GgufValueType.UInt32), (file.Metadata.Find("imatrix.chunk_count")!.Type, file.Metadata.Find("imatrix.chunk_size")!.Type));
        Assert.Equal(
            ["blk.0.attn_q.weight.in_sum2 [4]", "blk.0.attn_q.weight.counts [1]", "blk.0.ffn_up_exps.weight.in_sum2 [3, 2]", "blk.0.ffn_up_exps.weight.counts [3, 1]"],
            file.Tensors.Select(tensor => $"{tensor.Name} {tensor.Shape}"));
        Assert.Equal(0, bytes.Length % 32);
        Assert.Equal((file.Tensors[^1].ByteOffset + 31) / 32 * 32 + 32, bytes.Length);
    }

    [Fact]
    public void TextsWithoutANameKeepTheirKey()
    {
        Imatrix read = Read(ImatrixWriter.Write(Sample with { Datasets = [] }, ImatrixFormat.Gguf, "x"));
        Assert.Empty(read.Datasets);
        using GgufFile file = GgufFile.Open(new MemoryReadFile("x", ImatrixWriter.Write(Sample with { Datasets = [] }, ImatrixFormat.Gguf, "x")), new ReadOptions());
        Assert.Equal(1, file.Metadata.Find("imatrix.datasets")!.Count);
    }

    [Fact]
    public void DatIsLaidOutAsLlamaImatrixDoes()
    {
        Dat expected = new();
        expected.Int(2).Text("blk.0.attn_q.weight").Int(2).Int(4).Floats(2, 0, 2048.5f / 1024 * 2, 3f / 1024 * 2);
        expected.Text("blk.0.ffn_up_exps.weight").Int(2).Int(6).Floats(2, 4, 2, 2, 5f / 924 * 2, 6f / 924 * 2);
        expected.Int(2).Text("more.txt");
        Assert.Equal(expected.ToArray(), ImatrixWriter.Write(Sample, ImatrixFormat.Dat, "x"));
    }

    [Fact]
    public void DatKeepsTheMeans()
    {
        Imatrix read = Read(ImatrixWriter.Write(Sample, ImatrixFormat.Dat, "x"));
        Assert.Equal(["more.txt"], read.Datasets);
        Assert.Equal(2, read.ChunkCount);
        Imatrix back = Read(ImatrixWriter.Write(read with { ChunkSize = 512 }, ImatrixFormat.Gguf, "x"));
        foreach ((ImatrixEntry expected, ImatrixEntry found) in Sample.Entries.Zip(back.Entries))
        {
            Assert.Equal(expected.Name, found.Name);
            Assert.Equal(expected.MeanSquares(), found.MeanSquares(), (a, b) => Math.Abs(a - b) <= 1e-6f * a);
        }
    }

    [Fact]
    public void TheOldestFilesEndAfterTheirEntries()
    {
        Imatrix read = Read(new Dat().Int(1).Text("a").Int(3).Int(2).Floats(6, 9).ToArray());
        Assert.Equal([2f, 3f], read.Entries[0].MeanSquares());
        Assert.Equal((0, 0), (read.ChunkCount, read.Datasets.Count));
    }

    [Fact]
    public void MeansAreSumsOverCountsInSinglePrecisionAndOneWithoutTokens()
    {
        Assert.Equal([1f, 0f, 2048.5f / 1024, 3f / 1024], Sample.Entries[0].MeanSquares());
        Assert.Equal([1f, 2f, 1f, 1f, 5f / 924, 6f / 924], Sample.Entries[1].MeanSquares());
    }

    [Fact]
    public void MergingAddsSumsAndCounts()
    {
        ImatrixEntry plain = new("blk.0.attn_q.weight", [1, 1, 1, 1], [76]);
        ImatrixEntry broadcast = new("blk.0.ffn_up_exps.weight", [1, 1, 1, 1, 1, 1], [10]);
        Imatrix more = new([plain, broadcast, new ImatrixEntry("x", [1], [1])], ["more.txt", "third.txt"], 3, 0);
        Imatrix merged = Imatrix.Merge([(Sample, "a"), (more, "b")]);
        Assert.Equal(["blk.0.attn_q.weight", "blk.0.ffn_up_exps.weight", "x"], merged.Entries.Select(entry => entry.Name));
        Assert.Equal([1025f, 1, 2049.5f, 4], merged.Entries[0].Sums);
        Assert.Equal([1100L], merged.Entries[0].Counts);
        Assert.Equal([110L, 10, 934], merged.Entries[1].Counts);
        Assert.Equal(["calibration.txt", "more.txt", "third.txt"], merged.Datasets);
        Assert.Equal((5, 512), (merged.ChunkCount, merged.ChunkSize));
        QuantException error = Assert.Throws<QuantException>(() => Imatrix.Merge([(Sample, "a"), (Sample with { Entries = [new ImatrixEntry("blk.0.attn_q.weight", [1, 1], [76])] }, "b")]));
        Assert.Equal((StatisticsRules.Usable, "b"), (error.Rule, error.Path));
    }

    [Theory]
    [InlineData(ImatrixFormat.Gguf)]
    [InlineData(ImatrixFormat.Dat)]
    public void FilesCutShortAreRefusedWithATypedError(ImatrixFormat format)
    {
        byte[] whole = ImatrixWriter.Write(Sample, format, "x");
        int accepted = 0;
        for (int length = 0; length < whole.Length; length++)
        {
            try
            {
                Read(whole[..length]);
                accepted++;
            }
            catch (QuantException error)
            {
                Assert.NotNull(error.Rule);
            }
        }

        // GGUF: less padding behind the last tensor. The older format: without what follows the entries, or with the number of windows alone.
        Assert.Equal(format == ImatrixFormat.Gguf ? 20 : 2, accepted);
    }

    [Fact]
    public void ChangedBytesNeverDoHarm()
    {
        Random random = new(5);
        foreach (ImatrixFormat format in Enum.GetValues<ImatrixFormat>())
        {
            byte[] whole = ImatrixWriter.Write(Sample, format, "x");
            for (int i = 0; i < 2000; i++)
            {
                byte[] changed = [.. whole];
                for (int k = random.Next(1, 4); k > 0; k--) changed[random.Next(changed.Length)] = (byte)random.Next(256);
                try
                {
                    foreach (ImatrixEntry entry in Read(changed).Entries) Assert.All(entry.MeanSquares(), value => Assert.True(float.IsFinite(value) && value >= 0));
                }
                catch (QuantException)
                {
                }
            }
        }
    }

    internal static Imatrix Read(byte[] bytes) => ImatrixReader.Read(new MemoryFolder().With("x", bytes), "x", new ReadOptions());

    private static void AssertSame(Imatrix expected, Imatrix found)
    {
        Assert.Equal(expected.Entries.Select(entry => entry.Name), found.Entries.Select(entry => entry.Name));
        foreach ((ImatrixEntry a, ImatrixEntry b) in expected.Entries.Zip(found.Entries))
        {
            Assert.Equal(a.Sums, b.Sums);
            Assert.Equal(a.Counts, b.Counts);
        }
    }

    /// <summary>The older format number by number.</summary>
    internal sealed class Dat
    {
        private readonly MemoryStream _bytes = new();

        public Dat Int(int value)
        {
            Span<byte> bytes = stackalloc byte[4];
            BinaryPrimitives.WriteInt32LittleEndian(bytes, value);
            _bytes.Write(bytes);
            return this;
        }

        public Dat Text(string text)
        {
            byte[] utf8 = Encoding.UTF8.GetBytes(text);
            Int(utf8.Length);
            _bytes.Write(utf8);
            return this;
        }

        public Dat Floats(params float[] values)
        {
            _bytes.Write(MemoryMarshal.AsBytes(values.AsSpan()));
            return this;
        }

        public byte[] ToArray() => _bytes.ToArray();
    }
}
