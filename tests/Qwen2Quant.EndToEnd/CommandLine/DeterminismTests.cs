using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>The bytes of an output depend neither on the number of threads nor on the width of the vectors.</summary>
public sealed class DeterminismTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("Q8_0")]
    [InlineData("Q4_0")]
    [InlineData("Q5_1")]
    [InlineData("Q6_K")]
    public void OneThreadAndEveryVectorWidthGiveTheSameFile(string type)
    {
        byte[] expected = Quantize(type, "2", null);
        Assert.Equal(expected, Quantize(type, "1", null));
        foreach (string width in new[] { "scalar", "128", "256", "512" }) Assert.Equal(expected, Quantize(type, "2", width));
    }

    /// <summary>The searches of each family of types, with one importance matrix.</summary>
    [Theory]
    [InlineData("Q3_K_M")]
    [InlineData("Q4_K_M")]
    [InlineData("IQ4_XS")]
    [InlineData("IQ3_M")]
    [InlineData("IQ2_XS")]
    [InlineData("IQ1_M")]
    [InlineData("TQ1_0")]
    public void SearchesGiveTheSameFile(string type)
    {
        string imatrix = _folder.File("imatrix.gguf");
        CliCommand.Succeed("calibrate", Models.Tiny, "--data", "builtin:calibration", "--samples", "4", "--out", imatrix);
        byte[] expected = Quantize(type, "2", null, "--imatrix", imatrix);
        Assert.Equal(expected, Quantize(type, "1", "256", "--imatrix", imatrix));
        Assert.Equal(expected, Quantize(type, "2", "128", "--imatrix", imatrix));
        Assert.Equal(expected, Quantize(type, "2", "scalar", "--imatrix", imatrix));
    }

    /// <summary>Several slabs for each tensor, in any order.</summary>
    [Fact]
    public void AModelOfManySlabsIsTheSameWithAnyNumberOfThreads()
    {
        string source = TestCheckpoint.Write(_folder.File("wide"), Models.Wide(4));
        byte[][] outputs = [.. Enumerable.Range(1, 3).Select(threads =>
        {
            string output = _folder.File($"{threads}.gguf");
            CliCommand.Succeed("quantize", source, "--to", "gguf:Q4_1", "--out", output, "--threads", $"{threads}");
            return File.ReadAllBytes(output);
        })];
        Assert.True(outputs[0].Length > 8_000_000);
        Assert.All(outputs, output => Assert.True(output.AsSpan().SequenceEqual(outputs[0])));
    }

    private byte[] Quantize(string type, string threads, string? width, params string[] options)
    {
        string output = _folder.File($"{type}-{threads}-{width}.gguf");
        CliCommand command = new(["quantize", Models.Tiny, "--to", $"gguf:{type}", "--out", output, "--threads", threads, .. options]);
        if (width is not null) command = command with { Environment = new Dictionary<string, string> { ["QWEN2QUANT_SIMD"] = width } };
        command.Run().Expect(0);
        return File.ReadAllBytes(output);
    }
}
