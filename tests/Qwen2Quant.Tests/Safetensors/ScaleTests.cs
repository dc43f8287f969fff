using System.Diagnostics;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;
using Xunit.Abstractions;

namespace Qwen2Quant.Tests.Safetensors;

public sealed class ScaleTests(ITestOutputHelper output)
{
    [Fact]
    public void AMillionTensorsOpenInSecondsAndBoundedMemory()
    {
        const int Count = 1_000_000;
        OutputTensor[] tensors = new OutputTensor[Count];
        Shape shape = new(1);
        for (int i = 0; i < Count; i++) tensors[i] = new OutputTensor($"t.{i}", PlainTypes.U8, shape);
        long start = Stopwatch.GetTimestamp();
        PlannedFile file = SafetensorsPlan.Create(tensors, new Dictionary<string, string>(), long.MaxValue).Files[0];
        output.WriteLine($"plan: {Stopwatch.GetElapsedTime(start).TotalSeconds:F2} s, header {file.Header.Length} bytes");

        long allocated = GC.GetAllocatedBytesForCurrentThread();
        start = Stopwatch.GetTimestamp();
        SafetensorsFile opened = SafetensorsFile.Open(new FilledFile(file.Header, file.ByteLength), new ReadOptions());
        TimeSpan elapsed = Stopwatch.GetElapsedTime(start);
        allocated = GC.GetAllocatedBytesForCurrentThread() - allocated;
        output.WriteLine($"open: {elapsed.TotalSeconds:F2} s, {allocated} bytes allocated, {(double)allocated / file.Header.Length:F2} for each byte of header");
        Assert.Equal(Count, opened.Tensors.Count);
        Assert.Equal(file.Tensors[Count / 2].ByteOffset, opened.Find(file.Tensors[Count / 2].Tensor.Name)!.ByteOffset);
        Assert.True(elapsed < TimeSpan.FromSeconds(20), $"took {elapsed}");
        Assert.True(allocated < 6L * file.Header.Length, $"allocated {allocated} bytes");
    }

    [Fact]
    public void TensorsInReverseOrderAreSortedInTime()
    {
        const int Count = 100_000;
        IEnumerable<string> entries = Enumerable.Range(0, Count).Reverse().Select(static i => $$"""
            "t{{i}}":{"dtype":"U8","shape":[1],"data_offsets":[{{i}},{{i + 1}}]}
            """);
        byte[] bytes = Skeleton.Join(System.Text.Encoding.UTF8.GetBytes($"{{{string.Join(',', entries)}}}"), Count);
        long start = Stopwatch.GetTimestamp();
        SafetensorsFile file = SafetensorsRuleCases.Open(bytes);
        TimeSpan elapsed = Stopwatch.GetElapsedTime(start);
        output.WriteLine($"open: {elapsed.TotalSeconds:F2} s");
        Assert.Equal("t0", file.Tensors[0].Name);
        Assert.Equal(file.DataByteOffset + 777, file.Find("t777")!.ByteOffset);
        Assert.True(elapsed < TimeSpan.FromSeconds(15), $"took {elapsed}");
    }

    /// <summary>Refusals that must come before the header is allocated.</summary>
    [Theory]
    [InlineData(100_000_001UL, (byte)'{', "ST-4")]
    [InlineData(1UL << 63, (byte)'{', "ST-5")]
    [InlineData(100_000_000UL, (byte)'[', "ST-8")]
    [InlineData(100_000_000UL, (byte)0, "ST-8")]
    public void NothingIsAllocatedForAHeaderThatCannotBe(ulong length, byte filler, string rule)
    {
        FilledFile file = new(BitConverter.GetBytes(length), 200_000_000, filler);
        long allocated = GC.GetAllocatedBytesForCurrentThread();
        QuantException error = Assert.Throws<QuantException>(() => SafetensorsFile.Open(file, new ReadOptions()));
        Assert.Equal(rule, error.Rule!.Id);
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - allocated, 0, 1 << 20);
    }
}
