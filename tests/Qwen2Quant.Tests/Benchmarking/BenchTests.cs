using System.Text.Json;
using Qwen2Quant.Cli;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Gguf.Blocks;
using Qwen2Quant.Pipeline.Benchmarking;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Benchmarking;

public class BenchTests
{
    private static readonly BenchmarkOptions Quick = new() { Budget = TimeSpan.FromTicks(1), DiskBytes = 3_000_001, MemoryBytes = 3_000_001, LongestText = 512 };

    [Theory]
    [InlineData(SimdLevel.Scalar, "scalar", "scalar 4x32")]
    [InlineData(SimdLevel.Vector128, "vector128", "vector128 6x32")]
    [InlineData(SimdLevel.Avx2, "avx2", "avx2 6x32")]
    [InlineData(SimdLevel.Avx512, "avx512", "avx512 12x32")]
    public void Each_level_chooses_its_own_kernels(SimdLevel level, string width, string product)
    {
        Assert.Equal(product, MatrixProduct.KernelNameAt(level));
        BlockType q8 = (BlockType)GgmlTypes.Find("Q8_0")!.Element, q81 = (BlockType)GgmlTypes.Find("Q8_1")!.Element;
        Assert.Equal((width, width), (q8.DecoderNameAt(level), q8.EncoderNameAt(level)));
        Assert.Equal((width, null), (q81.DecoderNameAt(level), q81.EncoderNameAt(level)));
    }

    [Fact]
    public void Names_are_those_of_the_widths() =>
        Assert.Equal(
            [("scalar", 1), ("vector128", 4), ("avx2", 8), ("avx512", 16)],
            new[] { (Lanes1.Name, Lanes1.Width), (Lanes128.Name, Lanes128.Width), (Lanes256.Name, Lanes256.Width), (Lanes512.Name, Lanes512.Width) });

    [Fact]
    public void The_kernels_of_this_process_are_those_of_its_level()
    {
        IReadOnlyList<string> kernels = MachineBenchmark.Kernels();
        Assert.Equal("matrix-product: " + MatrixProduct.KernelNameAt(Simd.Level), kernels[0]);
        Assert.Contains($"q6_k.encode: {Simd.Level.ToString().ToLowerInvariant()}", kernels);
        Assert.Equal(kernels.Count, kernels.Distinct().Count());
    }

    [Fact]
    public void Every_codec_has_a_speed()
    {
        IReadOnlyList<BenchmarkFigure> figures = MachineBenchmark.Run(BenchmarkGroup.Codecs, Quick, new RunContext());
        Assert.All(figures, figure => Assert.True(figure.Value > 0 && double.IsFinite(figure.Value), figure.Name));
        Assert.Equal(figures.Count, figures.Select(figure => figure.Name).Distinct().Count());
        Assert.All(figures.Where(figure => figure.Group == "codecs"), figure => Assert.True(figure is { MemoryShare: > 0, OperationsPerValue: > 0 }, figure.Name));
        foreach (GgmlType type in GgmlTypes.All)
        {
            string name = type.Name.ToLowerInvariant();
            Assert.Equal(type.Element.CanEncode, figures.Any(figure => figure.Name.StartsWith(name + ".encode", StringComparison.Ordinal)));
            if (type.Element.IsQuantized) Assert.Contains(figures, figure => figure.Name == name + ".decode");
        }
    }

    [Theory]
    [InlineData(BenchmarkGroup.Matmul)]
    [InlineData(BenchmarkGroup.Memory)]
    [InlineData(BenchmarkGroup.Disk)]
    [InlineData(BenchmarkGroup.Attention)]
    [InlineData(BenchmarkGroup.Forward)]
    [InlineData(BenchmarkGroup.Gptq)]
    public void Ceilings_are_measured_and_leave_nothing_behind(BenchmarkGroup group)
    {
        using TempFolder folder = new();
        IReadOnlyList<BenchmarkFigure> figures = MachineBenchmark.Run(group, Quick with { Folder = folder.Path }, new RunContext { Threads = 2 });
        Assert.NotEmpty(figures);
        Assert.All(figures, figure => Assert.True(figure.Value > 0 && double.IsFinite(figure.Value), figure.Name));
        Assert.All(figures, figure => Assert.Equal(group.ToString().ToLowerInvariant(), figure.Group));
        Assert.Empty(Directory.EnumerateFileSystemEntries(folder.Path));
    }

    [Fact]
    public void Bench_prints_one_json_document()
    {
        StringWriter output = new(), error = new();
        Assert.Equal(0, CommandLineHost.Run(["bench", "--only", "kernels", "--json"], output, error, errorRedirected: true));
        using JsonDocument document = JsonDocument.Parse(output.ToString());
        JsonElement root = document.RootElement;
        Assert.Equal(Simd.Level.ToString().ToLowerInvariant(), root.GetProperty("simd").GetString());
        Assert.Equal(Environment.ProcessorCount, root.GetProperty("threads").GetInt32());
        Assert.Equal(MachineBenchmark.Kernels(), root.GetProperty("kernels").EnumerateArray().Select(kernel => kernel.GetString()!));
        Assert.Equal(0, root.GetProperty("figures").GetArrayLength());
    }

    [Fact]
    public void A_figure_in_json_has_group_name_value_and_unit()
    {
        StringWriter output = new(), error = new();
        Assert.Equal(0, CommandLineHost.Run(["bench", "--only", "matmul", "--json", "--threads", "1"], output, error, errorRedirected: true));
        using JsonDocument document = JsonDocument.Parse(output.ToString());
        Assert.False(document.RootElement.TryGetProperty("kernels", out _));
        JsonElement figure = Assert.Single(document.RootElement.GetProperty("figures").EnumerateArray());
        Assert.Equal(("matmul", "f32.threads-1", "GFLOP/s"), (figure.GetProperty("group").GetString(), figure.GetProperty("name").GetString(), figure.GetProperty("unit").GetString()));
        Assert.True(figure.GetProperty("value").GetDouble() > 0);
    }

    [Fact]
    public void An_unknown_group_is_a_usage_error()
    {
        StringWriter output = new(), error = new();
        Assert.Equal(2, CommandLineHost.Run(["bench", "--only", "everything"], output, error, errorRedirected: true));
    }
}
