using System.Globalization;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.Compatibility;

/// <summary>Files of every preset that llama-quantize writes are read: the same values, and a model that runs.</summary>
public sealed class WeReadLlamaFilesTests(PlainGguf plain, ITestOutputHelper print) : IClassFixture<PlainGguf>
{
    /// <summary>One window: enough to see a wrong scale or a shifted nibble, which the decoded values show first.</summary>
    private const int Chunks = 1;

    /// <summary>llama.cpp rounds activations to 8 bits.</summary>
    private const double Tolerance = 0.01;

    /// <summary>Below three bits the model is near to noise, and the rounding of activations shows more.</summary>
    private const double CoarseTolerance = 0.05;

    [LlamaTheory]
    [InlineData("Q4_0")]
    [InlineData("Q4_1")]
    [InlineData("Q5_0")]
    [InlineData("Q5_1")]
    [InlineData("Q8_0")]
    [InlineData("Q2_K")]
    [InlineData("Q3_K_S")]
    [InlineData("Q3_K_M")]
    [InlineData("Q3_K_L")]
    [InlineData("Q4_K_S")]
    [InlineData("Q4_K_M")]
    [InlineData("Q5_K_S")]
    [InlineData("Q5_K_M")]
    [InlineData("Q6_K")]
    [InlineData("IQ4_NL")]
    [InlineData("IQ4_XS")]
    [InlineData("IQ3_S")]
    [InlineData("IQ3_M")]
    [InlineData("TQ1_0")]
    [InlineData("TQ2_0")]
    public void PresetsWithoutAnImatrix(string fileType) => AssertAgree(fileType, new LlamaQuantizeOptions { ThreadCount = 1 });

    [LlamaTheory]
    [InlineData("Q2_K_S")]
    [InlineData("IQ3_XXS")]
    [InlineData("IQ3_XS")]
    [InlineData("IQ2_XXS")]
    [InlineData("IQ2_XS")]
    [InlineData("IQ2_S")]
    [InlineData("IQ2_M")]
    [InlineData("IQ1_S")]
    [InlineData("IQ1_M")]
    public void PresetsWithAnImatrix(string fileType)
    {
        using GgufFile source = Models.OpenGguf(plain.Path);
        Dictionary<string, float[]> even = source.Tensors.Where(entry => entry.Shape.Rank == 2).ToDictionary(entry => entry.Name, entry => Enumerable.Repeat(1f, (int)entry.Shape.RowLength).ToArray());
        AssertAgree(fileType, new LlamaQuantizeOptions { ThreadCount = 1, Imatrix = even });
    }

    /// <summary>Types that no preset gives a dense model, in the feed-forward part.</summary>
    [LlamaTheory]
    [InlineData("MXFP4")]
    [InlineData("NVFP4")]
    public void TypesOutsideThePresets(string type) =>
        AssertAgree("Q8_0", new LlamaQuantizeOptions { ThreadCount = 1, TensorTypes = [("ffn_", GgmlTypes.Find(type)!.Id)] }, type);

    private void AssertAgree(string fileType, LlamaQuantizeOptions options, string? expectedType = null)
    {
        using TempFolder folder = new();
        string path = folder.File("theirs.gguf");
        LlamaQuantizer.Quantize(plain.Path, path, fileType, options);
        using (GgufFile file = Models.OpenGguf(path))
        {
            print.WriteLine(string.Join(", ", file.Tensors.GroupBy(entry => entry.Type.Name).Select(group => $"{group.Count()} {group.Key}")));
            if (expectedType is not null) Assert.Contains(file.Tensors, entry => entry.Type.Name == expectedType);
            foreach (TensorEntry entry in file.Tensors) AssertSameValues(file, entry);
        }

        CliCommand.Succeed("verify", path, "--quiet");
        double ours = CliCommand.Succeed("perplexity", path, "--data", Texts.HeldOutPath, "--chunks", $"{Chunks}", "--json").Json().GetProperty("perplexity").GetDouble();
        using LlamaModel llama = LlamaModel.Load(path);
        double theirs = llama.Perplexity(Texts.HeldOut, Chunks).Value;
        print.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{fileType}: perplexity {ours:F4} here, {theirs:F4} in llama.cpp, difference {100 * ((ours / theirs) - 1):F4} %"));
        bool isCoarse = fileType.StartsWith("TQ", StringComparison.Ordinal) || fileType.StartsWith("IQ1", StringComparison.Ordinal) || fileType.StartsWith("IQ2", StringComparison.Ordinal);
        double tolerance = isCoarse ? CoarseTolerance : Tolerance;
        Assert.InRange(ours / theirs, 1 - tolerance, 1 + tolerance);
    }

    private static void AssertSameValues(GgufFile file, TensorEntry entry)
    {
        byte[] blocks = Models.Bytes(file, entry);
        float[] ours = new float[entry.Shape.ValueCount];
        entry.Type.Decode(blocks, ours);
        float[] theirs = Ggml.Dequantize(GgmlTypes.Of(entry.Type)!.Id, blocks);
        Assert.True(MemoryMarshal.AsBytes<float>(ours).SequenceEqual(MemoryMarshal.AsBytes<float>(theirs)), $"{entry.Name} ({entry.Type}) decodes differently");
    }
}

/// <summary>The built-in model in an F32 GGUF that this program wrote; where llama.cpp is missing, no file.</summary>
public sealed class PlainGguf : IDisposable
{
    private readonly TempFolder _folder = new();

    public PlainGguf()
    {
        Path = _folder.File("tiny-F32.gguf");
        if (InteropPackages.LlamaLibraries is not null) CliCommand.Succeed("convert", Models.Tiny, "--to", "gguf", "--type", "f32", "--out", Path);
    }

    public string Path { get; }

    public void Dispose() => _folder.Dispose();
}
