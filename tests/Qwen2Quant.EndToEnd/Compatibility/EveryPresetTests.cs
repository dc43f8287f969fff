using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;
using Qwen2Quant.Validation;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.Compatibility;

/// <summary>
/// Each preset of llama-quantize, without and with an importance matrix: the reference effort writes llama-quantize's types and bytes, and what the default
/// effort writes has the same perplexity in llama.cpp as here.
/// </summary>
public sealed class EveryPresetTests(WeighedModels models, ITestOutputHelper print) : IClassFixture<WeighedModels>, IDisposable
{
    /// <summary>Windows of 512 with 255 scored tokens each.</summary>
    private const int Chunks = 4;

    /// <summary>llama.cpp rounds activations to 8 bits.</summary>
    private const double Tolerance = 0.005;

    private readonly TempFolder _folder = new();

    public static TheoryData<string, bool> Presets()
    {
        TheoryData<string, bool> cases = [];
        foreach (Recipe recipe in RecipeBook.BuiltIn.Recipes.Where(recipe => recipe.Type is { IsQuantized: true } && LlamaFileTypes.All.ContainsKey(recipe.Name) && recipe.Name != "NVFP4"))
        {
            // The mixture of IQ3_XS gives some tensors a type that needs one.
            if (!recipe.NeedsImatrix && !RecipeBook.BuiltIn.ImatrixTypes.Contains(recipe.Type!) && recipe.Name != "IQ3_XS") cases.Add(recipe.Name, false);
            cases.Add(recipe.Name, true);
        }

        return cases;
    }

    public void Dispose() => _folder.Dispose();

    [LlamaTheory]
    [MemberData(nameof(Presets))]
    public void TheReferenceEffortWritesTheSameTensors(string preset, bool hasImatrix) => AssertSameTensors(models.Tiny, preset, hasImatrix);

    [LlamaTheory(Shared = true)]
    [InlineData("Q4_0", true)]
    [InlineData("Q2_K", false)]
    [InlineData("Q3_K_M", true)]
    [InlineData("Q4_K_M", false)]
    [InlineData("Q5_K_M", true)]
    [InlineData("IQ3_XXS", true)]
    [InlineData("IQ4_XS", true)]
    [InlineData("MXFP4_MOE", false)]
    public void TheReferenceEffortWritesTheSameTensorsOfExperts(string preset, bool hasImatrix) => AssertSameTensors(models.Experts, preset, hasImatrix);

    [LlamaTheory]
    [MemberData(nameof(Presets))]
    public void LlamaReadsTheDefaultEffort(string preset, bool hasImatrix) => AssertSamePerplexity(models.Tiny, preset, hasImatrix);

    [LlamaTheory(Shared = true)]
    [InlineData("Q2_K", true)]
    [InlineData("Q3_K_M", false)]
    [InlineData("Q4_K_M", true)]
    [InlineData("Q5_K_M", false)]
    [InlineData("Q6_K", true)]
    [InlineData("Q4_1", false)]
    [InlineData("Q5_1", true)]
    [InlineData("IQ4_NL", true)]
    [InlineData("IQ4_XS", false)]
    [InlineData("IQ3_XXS", true)]
    [InlineData("IQ3_S", false)]
    [InlineData("IQ2_XXS", true)]
    [InlineData("IQ2_XS", true)]
    [InlineData("IQ2_S", true)]
    [InlineData("IQ1_S", true)]
    [InlineData("IQ1_M", true)]
    [InlineData("TQ1_0", false)]
    [InlineData("TQ2_0", true)]
    [InlineData("MXFP4_MOE", false)]
    public void LlamaReadsTheDefaultEffortOfExperts(string preset, bool hasImatrix) => AssertSamePerplexity(models.Experts, preset, hasImatrix);

    /// <summary>The one type that no preset of this llama.cpp gives.</summary>
    [LlamaFact]
    public void LlamaReadsNvfp4()
    {
        string path = _folder.File("nvfp4.gguf");
        CliCommand.Succeed("quantize", models.Tiny.PlainPath, "--to", "gguf:Q8_0", "--tensor-type", "ffn_=NVFP4", "--out", path);
        AssertSamePerplexity(path, "NVFP4");
    }

    private void AssertSameTensors(WeighedModel model, string preset, bool hasImatrix)
    {
        string theirPath = _folder.File("theirs.gguf"), ourPath = _folder.File("ours.gguf");
        LlamaQuantizer.Quantize(model.PlainPath, theirPath, preset, new LlamaQuantizeOptions { Imatrix = hasImatrix ? model.Weights : new Dictionary<string, float[]>() });
        model.Quantize(preset, hasImatrix, Effort.Reference, ourPath);
        using GgufFile theirs = Models.OpenGguf(theirPath), ours = Models.OpenGguf(ourPath);
        print.WriteLine(string.Join(", ", theirs.Tensors.GroupBy(entry => entry.Type.Name).Select(group => $"{group.Count()} {group.Key}")));
        Assert.Equal(theirs.Tensors.Select(Describe), ours.Tensors.Select(Describe));
        foreach (TensorEntry tensor in theirs.Tensors)
        {
            Assert.True(Models.Bytes(theirs, tensor).AsSpan().SequenceEqual(Models.Bytes(ours, ours.Find(tensor.Name)!)), $"{preset}: the bytes of {tensor.Name}, {tensor.Type}, differ");
        }

        Assert.Equal(theirs.Metadata.Find("general.file_type"), ours.Metadata.Find("general.file_type"));
    }

    private void AssertSamePerplexity(WeighedModel model, string preset, bool hasImatrix)
    {
        string path = _folder.File("ours.gguf");
        model.Quantize(preset, hasImatrix, Effort.Normal, path);
        AssertSamePerplexity(path, preset);
    }

    private void AssertSamePerplexity(string path, string preset)
    {
        double ours;
        using (Checkpoint checkpoint = Models.Open(path))
        {
            RunContext context = new();
            ours = Proof.Perplexity(checkpoint, EvaluationText.Load(context.Files, Texts.HeldOutPath, Stream.Null), new WindowOptions { Chunks = Chunks }, context).Perplexity;
        }

        using LlamaModel llama = LlamaModel.Load(path);
        double theirs = llama.Perplexity(Texts.HeldOut, Chunks).Value;
        print.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{preset}: perplexity {ours:F4} here, {theirs:F4} in llama.cpp, difference {100 * ((ours / theirs) - 1):F4} %"));
        Assert.InRange(ours / theirs, 1 - Tolerance, 1 + Tolerance);
    }

    private static string Describe(TensorEntry entry) => $"{entry.Name} {entry.Type.Name} {entry.Shape}";
}
