using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Tests.Pipeline;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.CommandLine;

/// <summary>A dry run tells the exact size for every published shape; the checkpoints' data are holes.</summary>
public sealed class PublishedSizesTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [UnixTheory]
    [InlineData("0.5B", "Q4_K_M", 391859712)]
    [InlineData("1.5B", "Q3_K_L", 874211840)]
    [InlineData("2.5-3B", "Q5_K_S", 2163709952)]
    [InlineData("7B", "IQ4_XS", 4244344832)]
    [InlineData("14B", "Q2_K", 5764530176)]
    [InlineData("32B", "Q6_K", 26880176128)]
    [InlineData("72B", "Q4_K_M", 47409725440)]
    [InlineData("57B-A14B", "Q3_K_M", 27499214848)]
    [InlineData("A2.7B", "Q5_K_M", 10827577344)]
    public void BytesOfTensorData(string shape, string preset, long bytes)
    {
        string model = TestCheckpoint.WriteHoles(_folder.File(shape), PublishedShapes.All[shape]);
        CliResult result = CliCommand.Succeed("quantize", model, "--to", $"gguf:{preset}", "--out", _folder.File("out.gguf"), "--dry-run", "--json");
        Assert.Equal(bytes, result.Json().GetProperty("tensors").EnumerateArray().Sum(tensor => tensor.GetProperty("bytes").GetInt64()));
        Assert.False(File.Exists(_folder.File("out.gguf")));
    }
}
