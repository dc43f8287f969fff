using System.Text.Json.Nodes;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Quantized models as plain ones: the same values, and no trace of what is no longer true.</summary>
public sealed class DequantizeTests : IDisposable
{
    private readonly TempFolder _folder = new();

    /// <summary>Every checkpoint that GPTQModel, AutoAWQ, llm-compressor and mlx-lm wrote.</summary>
    public static TheoryData<string> Goldens
    {
        get
        {
            TheoryData<string> folders = [];
            // Without the data the theory is skipped, and needs a row to say so.
            if (SharedData.Root is null) folders.Add("");
            else foreach (string path in Directory.GetDirectories(SharedData.Path("models/golden")).Order(StringComparer.Ordinal)) folders.Add(Path.GetFileName(path));
            return folders;
        }
    }

    public void Dispose() => _folder.Dispose();

    [SharedTheory]
    [MemberData(nameof(Goldens))]
    public void AFolderOfFloatsHasThePerplexityOfThePackedOne(string folder)
    {
        string packed = SharedData.Path($"models/golden/{folder}"), plain = _folder.File("plain");
        Conversions.ToFolder(packed, plain, PlainTypes.F32);
        JsonObject config = JsonNode.Parse(File.ReadAllBytes(Path.Combine(plain, "config.json")))!.AsObject();
        Assert.False(config.ContainsKey("quantization_config") || config.ContainsKey("quantization"));
        Assert.False(File.Exists(Path.Combine(plain, "quantize_config.json")));
        double expected = Perplexity(packed);
        Assert.Equal(expected, Perplexity(plain), 1e-6 * expected);
    }

    [Theory]
    [InlineData("Q4_K_M")]
    [InlineData("IQ4_XS")]
    [InlineData("TQ2_0")]
    public void AGgufFileBecomesAFolderOfItsValues(string recipe)
    {
        Conversions.Quantize("builtin:tiny", _folder.File("m.gguf"), recipe);
        Conversions.ToFolder(_folder.File("m.gguf"), _folder.File("plain"), PlainTypes.F32);
        using Checkpoint quantized = Checkpoint.Open(_folder.File("m.gguf"), new RunContext()), plain = Checkpoint.Open(_folder.File("plain"), new RunContext());
        Assert.Contains(quantized.Tensors.Tensors, entry => entry.Type.IsQuantized);
        foreach (TensorEntry entry in quantized.Tensors.Tensors)
        {
            TensorEntry found = plain.Tensors.Find(entry.Name)!;
            Assert.Same(PlainTypes.F32, found.Type);
            Assert.Equal(quantized.Tensors.ReadAll(entry), plain.Tensors.ReadAll(found));
        }
    }

    /// <summary>How a file was quantized is not said of one that is not; other keys stay.</summary>
    [Fact]
    public void MetadataOfTheQuantizationEndWithIt()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small), quantized = _folder.File("m.gguf"), plain = _folder.File("plain.gguf");
        Conversions.Quantize(model, quantized, "Q4_0", quantization: new QuantizationOptions { Importance = Conversions.EvenImportance(model), Metadata = [new MetadataOverride("general.name", GgufValue.String("kept"))] });
        Conversions.ToGguf(quantized, plain, PlainTypes.BF16);
        using Checkpoint before = Checkpoint.Open(quantized, new RunContext()), after = Checkpoint.Open(plain, new RunContext());
        Assert.Contains(before.Gguf!.Metadata, pair => pair.Key.StartsWith("quantize.imatrix.", StringComparison.Ordinal));
        Assert.DoesNotContain(after.Gguf!.Metadata, pair => pair.Key.StartsWith("quantize.", StringComparison.Ordinal));
        Assert.True(after.Gguf.Metadata.TryGetString("general.name", out string? name) && name == "kept");
        Assert.True(after.Gguf.Metadata.TryGetInteger("general.file_type", out uint type) && type == 32);
        Assert.DoesNotContain(after.Tensors.Tensors, entry => entry.Type.IsQuantized);
    }

    private static double Perplexity(string model)
    {
        RunContext context = new() { Exact = true };
        using Checkpoint checkpoint = Checkpoint.Open(model, context);
        EvaluationText text = EvaluationText.Load(context.Files, "builtin:text", Stream.Null);
        return Proof.Perplexity(checkpoint, text, new WindowOptions { Context = 256, Chunks = 2, Protocol = ScoringProtocol.Full }, context).Perplexity;
    }
}
