using System.Text.Json;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Recipes;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Types that real llama.cpp gave each tensor of three models (<c>Data/preset-types.json</c>), and published totals.</summary>
public sealed class RecipeTests
{
    private static readonly Qwen2Config Tiny = new()
    {
        VocabSize = 2048, HiddenSize = 256, IntermediateSize = 512, NumHiddenLayers = 3, NumAttentionHeads = 4, NumKeyValueHeads = 2, HeadDim = 64, TieWordEmbeddings = true,
    };

    private static readonly Dictionary<string, Qwen2Config> Models = new(StringComparer.Ordinal)
    {
        ["tiny-qwen2"] = Tiny,
        ["tiny-qwen2moe"] = Tiny with
        {
            IsMoe = true, NumKeyValueHeads = 4, TieWordEmbeddings = false, NumExperts = 8, NumExpertsPerTok = 2, MoeIntermediateSize = 256, SharedExpertIntermediateSize = 512,
        },
        ["small-qwen2"] = Tiny with
        {
            VocabSize = 24576, HiddenSize = 576, IntermediateSize = 1536, NumHiddenLayers = 30, NumAttentionHeads = 9, NumKeyValueHeads = 3, HeadDim = 64,
        },
    };

    /// <summary>Model name, its configuration, and bytes of tensor data by preset (gguf-facts 7.8, computed from the published shapes).</summary>
    public static TheoryData<string, Qwen2Config, string, long> Totals()
    {
        Qwen2Config half = Tiny with { VocabSize = 151936, HiddenSize = 896, IntermediateSize = 4864, NumHiddenLayers = 24, NumAttentionHeads = 14, NumKeyValueHeads = 2, HeadDim = 64 };
        Qwen2Config seven = Tiny with { VocabSize = 152064, HiddenSize = 3584, IntermediateSize = 18944, NumHiddenLayers = 28, NumAttentionHeads = 28, NumKeyValueHeads = 4, HeadDim = 128, TieWordEmbeddings = false };
        Qwen2Config seventyTwo = seven with { HiddenSize = 8192, IntermediateSize = 29568, NumHiddenLayers = 80, NumAttentionHeads = 64, NumKeyValueHeads = 8 };
        Qwen2Config experts = seven with
        {
            IsMoe = true, VocabSize = 151936, NumExperts = 64, NumExpertsPerTok = 8, MoeIntermediateSize = 2560, SharedExpertIntermediateSize = 20480,
        };
        TheoryData<string, Qwen2Config, string, long> totals = [];
        Add("0.5B", half, ("F16", 988208640), ("Q4_0", 346206720), ("Q5_0", 390935040), ("Q6_K", 499788288), ("Q8_0", 525120000));
        Add("7B", seven, ("F16", 15231899648), ("Q4_0", 4425437184), ("Q5_0", 5309222912), ("Q6_K", 6248245248), ("Q8_0", 8092571648));
        Add("72B", seventyTwo, ("F16", 145416683520), ("Q4_0", 41225748480), ("Q5_0", 50158043136), ("Q6_K", 64341639168), ("Q8_0", 77256622080));
        Add("57B-A14B", experts, ("F16", 114831030272), ("Q4_0", 32456327680), ("Q5_0", 39563485696), ("Q6_K", 47114841088), ("Q8_0", 61016840192));
        return totals;

        void Add(string name, Qwen2Config config, params (string, long)[] sizes)
        {
            foreach ((string recipe, long bytes) in sizes) totals.Add(name, config, recipe, bytes);
        }
    }

    [Theory]
    [MemberData(nameof(Totals))]
    public void TotalsAreThoseOfPublishedFiles(string name, Qwen2Config config, string recipe, long bytes)
    {
        Assert.NotEmpty(name);
        Assert.Equal(bytes, Plan(config, recipe).Sum(tensor => tensor.ByteLength));
    }

    [Fact]
    public void TypesAreThoseThatLlamaCppChose()
    {
        using JsonDocument golden = JsonDocument.Parse(File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "Pipeline", "Data", "preset-types.json")));
        int compared = 0;
        foreach (JsonProperty model in golden.RootElement.EnumerateObject())
        {
            foreach (JsonProperty preset in model.Value.EnumerateObject())
            {
                Recipe recipe = RecipeBook.BuiltIn.Find(preset.Name)!;
                Assert.Equal(preset.Value.GetProperty("file_type").GetInt32(), recipe.FileType);
                Dictionary<string, OutputTensor> planned = Plan(Models[model.Name], preset.Name).ToDictionary(tensor => tensor.Name);
                foreach (JsonProperty type in preset.Value.GetProperty("types").EnumerateObject())
                {
                    foreach (JsonElement tensor in type.Value.EnumerateArray())
                    {
                        Assert.True(type.Name == planned[tensor.GetString()!].Type.Name, $"{model.Name} {preset.Name} {tensor}: {planned[tensor.GetString()!].Type} instead of {type.Name}");
                        compared++;
                    }
                }

                Assert.Equal(preset.Value.GetProperty("bytes_of_tensor_data").GetInt64(), planned.Values.Sum(tensor => tensor.ByteLength));
            }
        }

        Assert.True(compared > 1000);
    }

    [Theory]
    [InlineData("no-equals-sign")]
    [InlineData("=Q8_0")]
    [InlineData("attn_(=Q8_0")]
    [InlineData("attn_v=Q9_9")]
    [InlineData("attn_v=IQ1_S")]
    public void BadOverridesAreUsageErrors(string text) => Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => TensorTypeOverride.Parse(text)).Kind);

    [Fact]
    public void EveryRecipeNamesTypesThatCanBeWritten()
    {
        foreach (Recipe recipe in RecipeBook.BuiltIn.Recipes)
        {
            TypeChooser.RequireWritable(recipe.Type);
            foreach (RecipeRule rule in recipe.Rules ?? []) TypeChooser.RequireWritable(rule.Type);
        }

        Assert.Equal(RecipeBook.BuiltIn.Recipes.Count, RecipeBook.BuiltIn.Recipes.Select(recipe => recipe.FileType).Distinct().Count());
        foreach ((string wanted, string fallback) in RecipeBook.BuiltIn.Fallbacks)
        {
            Assert.True(TypeChooser.RequireWritable(wanted).ValuesPerBlock > TypeChooser.RequireWritable(fallback).ValuesPerBlock);
        }
    }

    private static List<OutputTensor> Plan(Qwen2Config config, string recipeName)
    {
        List<QuantEvent> events = [];
        TypeChooser chooser = new(RecipeBook.BuiltIn, RecipeBook.BuiltIn.Find(recipeName)!, new RecipeOptions(), config.TieWordEmbeddings, config.IsMoe ? config.NumExperts : 0);
        return [.. GgufNames.Plan(TensorCatalogue.For(config)).Select(tensor =>
            new OutputTensor(tensor.Name, chooser.Choose(tensor.Name, tensor.Shape, PlainTypes.F32, events).Actual, tensor.Shape))];
    }
}
