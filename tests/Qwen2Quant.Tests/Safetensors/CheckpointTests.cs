using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Safetensors;

public sealed class CheckpointTests
{
    [Fact]
    public void TwoHundredShardsNeedFewDescriptors()
    {
        OutputTensor[] tensors = [.. Enumerable.Range(0, 400).Select(static i => new OutputTensor($"t{i}", PlainTypes.F32, new Shape(2, 64)))];
        SafetensorsPlan plan = SafetensorsPlan.Create(tensors, new Dictionary<string, string>(), 1024);
        Assert.Equal(200, plan.Files.Count);
        MemoryFolder folder = new MemoryFolder().With(plan);
        using (SafetensorsCheckpoint checkpoint = SafetensorsCheckpoint.Open(folder, MemoryFolder.Path, new ReadOptions()))
        {
            Parallel.For(0, 4000, new ParallelOptions { MaxDegreeOfParallelism = 24 }, i =>
            {
                TensorEntry entry = checkpoint.Find($"t{i * 7 % 400}")!;
                Span<byte> bytes = stackalloc byte[100];
                checkpoint.ReadRaw(entry, 37, bytes);
                Assert.True(bytes.SequenceEqual(folder[plan.Files[entry.FileIndex].Name].AsSpan((int)entry.ByteOffset + 37, 100)));
            });
            Assert.InRange(folder.MostOpen, 1, 8);
            int openings = folder.Openings;
            for (int i = 0; i < 100; i++) checkpoint.ReadAll(checkpoint.Find("t0")!);
            Assert.InRange(folder.Openings, openings, openings + 1);
        }

        Assert.Equal(0, folder.OpenCount);
    }

    [Fact]
    public void EveryFailingCallIsATypedErrorAndLeavesNothingOpen()
    {
        int failed = 0;
        for (int call = 1; ; call++)
        {
            MemoryFolder folder = WeightFileRuleCases.Folder();
            folder.FailingCall = call;
            try
            {
                using SafetensorsCheckpoint checkpoint = SafetensorsCheckpoint.Open(folder, MemoryFolder.Path, new ReadOptions());
                foreach (TensorEntry entry in checkpoint.Tensors) checkpoint.ReadAll(entry);
                Assert.True(folder.Calls < call);
                break;
            }
            catch (QuantException error)
            {
                failed++;
                Assert.Equal(ErrorKind.Resource, error.Kind);
                Assert.NotNull(error.Path);
                Assert.IsType<IOException>(error.InnerException);
            }

            Assert.Equal(0, folder.OpenCount);
        }

        Assert.True(failed > 10);
    }

    [Fact]
    public void MissingShardsAreAllListed()
    {
        OutputTensor[] tensors = [.. Enumerable.Range(0, 5).Select(static i => new OutputTensor($"t{i}", PlainTypes.U8, new Shape(4)))];
        MemoryFolder folder = new MemoryFolder().With(SafetensorsPlan.Create(tensors, new Dictionary<string, string>(), 4));
        folder.Without("model-00002-of-00005.safetensors").Without("model-00005-of-00005.safetensors");
        QuantException error = Assert.Throws<QuantException>(() => SafetensorsCheckpoint.Open(folder, MemoryFolder.Path, new ReadOptions()));
        Assert.Contains("2 of 5 shards are missing: model-00002-of-00005.safetensors, model-00005-of-00005.safetensors", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void TypesThatAreOnlySizedAreNotQuantized() =>
        Assert.All(SafetensorsDtypes.All, static dtype => Assert.False(dtype.Element.IsQuantized, dtype.Name));

    [Fact]
    public void RowsWithoutADecoderAreRefusedBeforeTheyAreRead()
    {
        byte[] bytes = Skeleton.Broken(static s => (s.Entries[0].Dtype, s.Entries[0].Shape) = ("\"F4\"", "[32]"));
        MemoryFolder folder = new MemoryFolder().With("model.safetensors", bytes);
        using SafetensorsCheckpoint checkpoint = SafetensorsCheckpoint.Open(folder, MemoryFolder.Path, new ReadOptions());
        int calls = folder.Calls;
        QuantException error = Assert.Throws<QuantException>(() => checkpoint.ReadRows(checkpoint.Tensors[0], 0, 1, new float[32]));
        Assert.Equal((ErrorKind.Unsupported, checkpoint.Tensors[0].Name, calls), (error.Kind, error.Tensor, folder.Calls));
    }

    [Fact]
    public void ReadsStayInsideTheTensor()
    {
        using SafetensorsCheckpoint checkpoint = SafetensorsCheckpoint.FromFile(new MemoryReadFile("m", new Skeleton().Build()), new ReadOptions());
        TensorEntry entry = checkpoint.Find("b")!;
        byte[] bytes = new byte[8];
        checkpoint.ReadRaw(entry, 0, bytes);
        Assert.Equal(Enumerable.Range(16, 8).Select(static i => (byte)(i * 7)), bytes);
        Assert.Throws<ArgumentOutOfRangeException>(() => checkpoint.ReadRaw(entry, 1, bytes));
        Assert.Throws<ArgumentOutOfRangeException>(() => checkpoint.ReadRaw(entry, -1, bytes));
        Assert.Throws<ArgumentOutOfRangeException>(() => checkpoint.ReadRaw(entry, long.MaxValue, bytes));
        Assert.Null(checkpoint.Find("d"));
    }

    [Fact]
    public void BothSidesOfAClashAreNamedAndEscaped()
    {
        byte[] file = Skeleton.Broken(static s =>
        {
            (s.Entries[1].Name, s.Entries[2].Name) = ("\"left\\u001b[2J\"", "\"right\"");
            (s.Entries[2].Begin, s.Entries[2].End, s.DataBytes) = ("23", "26", 26);
        });
        QuantException error = Assert.Throws<QuantException>(() => SafetensorsRuleCases.Open(file));
        Assert.Contains("left\\u{1b}[2J", error.Message, StringComparison.Ordinal);
        Assert.Contains("right", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\u001b', error.Message);
    }

    [Fact]
    public void AnUnknownDtypeIsSizedFromItsOffsets()
    {
        byte[] file = Skeleton.Broken(static s => s.Entries[0].Dtype = "\"F24_X\"");
        TensorEntry entry = SafetensorsRuleCases.Open(file).Find("a")!;
        Assert.Equal(("F24_X", 1, 4, false), (entry.Type.Name, entry.Type.ValuesPerBlock, entry.Type.BytesPerBlock, entry.Type.CanDecode));
        Assert.Null(SafetensorsDtypes.Of(entry.Type));
    }

    [Fact]
    public void AFolderOnDiskIsRead()
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("qwen2quant-st-");
        try
        {
            OutputTensor[] tensors = [new("x", PlainTypes.F32, new Shape(2, 3)), new("y", PlainTypes.BF16, new Shape(5))];
            SafetensorsPlan plan = SafetensorsPlan.Create(tensors, new Dictionary<string, string>(), 24);
            foreach (PlannedFile planned in plan.Files)
            {
                File.WriteAllBytes(Path.Combine(folder.FullName, planned.Name), [.. planned.Header, .. new byte[planned.ByteLength - planned.Header.Length]]);
            }

            File.WriteAllBytes(Path.Combine(folder.FullName, SafetensorsPlan.IndexFileName), plan.Index!);
            using (SafetensorsCheckpoint checkpoint = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, folder.FullName, new ReadOptions()))
            {
                Assert.Equal(new float[6], checkpoint.ReadAll(checkpoint.Find("x")!));
                Assert.Equal(new float[5], checkpoint.ReadAll(checkpoint.Find("y")!));
            }

            QuantException missing = Assert.Throws<QuantException>(() => SafetensorsCheckpoint.OpenFile(DiskFileLayer.Instance, Path.Combine(folder.FullName, "no.safetensors"), new ReadOptions()));
            Assert.Equal(ErrorKind.InvalidInput, missing.Kind);
            Assert.Throws<QuantException>(() => SafetensorsCheckpoint.Open(DiskFileLayer.Instance, Path.Combine(folder.FullName, "no"), new ReadOptions()));
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [SharedFact]
    public void ModelsOfTheFieldAreRead()
    {
        string[] folders = [.. Directory.EnumerateFiles(SharedData.Path("models"), "*.safetensors", SearchOption.AllDirectories).Select(static file => Path.GetDirectoryName(file)!).Distinct()];
        Assert.NotEmpty(folders);
        foreach (string folder in folders)
        {
            EventLog log = new();
            using SafetensorsCheckpoint checkpoint = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, folder, new ReadOptions { Events = log });
            Assert.Empty(log.Events);
            Assert.NotEmpty(checkpoint.Tensors);
            Assert.All(checkpoint.Tensors, entry => Assert.NotNull(SafetensorsDtypes.Of(entry.Type)));
            TensorEntry smallest = checkpoint.Tensors.MinBy(static entry => entry.ByteLength)!;
            checkpoint.ReadAll(smallest);
        }
    }
}
