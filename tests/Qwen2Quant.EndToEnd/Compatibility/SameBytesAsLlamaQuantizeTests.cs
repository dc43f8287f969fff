using Qwen2Quant.Core.Tensors;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.Compatibility;

/// <summary>What is written equals what llama-quantize makes of the same model: types, bytes and metadata.</summary>
public sealed class SameBytesAsLlamaQuantizeTests(PlainGguf plainFiles, ITestOutputHelper print) : IClassFixture<PlainGguf>, IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<string, bool, string> Cases()
    {
        TheoryData<string, bool, string> cases = [];
        foreach (string type in new[] { "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K" })
        {
            foreach (bool pure in new[] { false, true }) cases.Add(type, pure, "bf16");
        }

        cases.Add("Q4_0", false, "f32");
        cases.Add("Q6_K", true, "f32");
        cases.Add("Q5_1", false, "f16");
        return cases;
    }

    [LlamaTheory]
    [MemberData(nameof(Cases))]
    public void TensorsAndMetadataAgree(string type, bool pure, string sourceType)
    {
        string plain = plainFiles.Path(sourceType), theirPath = _folder.File("theirs.gguf"), fromFolder = _folder.File("from-folder.gguf"), fromGguf = _folder.File("from-gguf.gguf");
        LlamaQuantizer.Quantize(plain, theirPath, type, new LlamaQuantizeOptions { ThreadCount = 1, Pure = pure });
        string[] options = ["--effort", "reference", .. pure ? ["--pure"] : Array.Empty<string>()];
        CliCommand.Succeed(["quantize", plain, "--to", $"gguf:{type}", "--out", fromGguf, .. options]);
        Assert.True(File.ReadAllBytes(theirPath).AsSpan().SequenceEqual(File.ReadAllBytes(fromGguf)), "the whole file differs from llama-quantize's");

        using GgufFile theirs = Models.OpenGguf(theirPath);
        print.WriteLine(string.Join(", ", theirs.Tensors.GroupBy(entry => entry.Type.Name).Select(group => $"{group.Count()} {group.Key}")));
        if (sourceType != "f16")
        {
            // BF16 weights are the same numbers in F32 and BF16, not in F16.
            CliCommand.Succeed(["quantize", Models.Tiny, "--to", $"gguf:{type}", "--out", fromFolder, .. options]);
            using GgufFile ours = Models.OpenGguf(fromFolder);
            AssertSameTensors(theirs, ours);
            AssertSameMetadata(theirs.Metadata, ours.Metadata);
        }
    }

    private static void AssertSameTensors(GgufFile theirs, GgufFile ours)
    {
        Assert.Equal(theirs.Tensors.Select(Describe), ours.Tensors.Select(Describe));
        foreach ((TensorEntry their, TensorEntry our) in theirs.Tensors.Zip(ours.Tensors))
        {
            Assert.True(Models.Bytes(theirs, their).AsSpan().SequenceEqual(Models.Bytes(ours, our)), $"the bytes of {our.Name} differ");
        }
    }

    private static string Describe(TensorEntry entry) => $"{entry.Name} {entry.Type.Name} {entry.Shape} at {entry.ByteOffset}";

    /// <summary>Keys, types, values and order, but for the two keys that ggml moves to the end when it sets them anew.</summary>
    private static void AssertSameMetadata(GgufMetadata theirs, GgufMetadata ours)
    {
        string[] moved = ["general.quantization_version", "general.file_type"];
        Assert.Equal(theirs.Select(pair => pair.Key).Where(key => !moved.Contains(key)), ours.Select(pair => pair.Key).Where(key => !moved.Contains(key)));
        Assert.Equal(theirs.Count, ours.Count);
        foreach ((string key, GgufValue value) in theirs) Assert.True(value.Equals(ours.Find(key)), $"{key} is {ours.Find(key)}, not {value}");
    }
}
