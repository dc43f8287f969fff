using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Recipes;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Dimensions of models, and what a recipe makes of them without a file.</summary>
internal static class PublishedShapes
{
    private static readonly Qwen2Config Tiny = new()
    {
        VocabSize = 2048, HiddenSize = 256, IntermediateSize = 512, NumHiddenLayers = 3, NumAttentionHeads = 4, NumKeyValueHeads = 2, HeadDim = 64, TieWordEmbeddings = true,
    };

    private static readonly Qwen2Config Seven = Dense(3584, 18944, 28, 28, 4, tied: false);

    /// <summary>The published sizes, by the names of their tables, and the models at hand.</summary>
    public static IReadOnlyDictionary<string, Qwen2Config> All { get; } = new Dictionary<string, Qwen2Config>(StringComparer.Ordinal)
    {
        ["0.5B"] = Dense(896, 4864, 24, 14, 2, tied: true),
        ["1.5B"] = Dense(1536, 8960, 28, 12, 2, tied: true),
        ["2.5-3B"] = Dense(2048, 11008, 36, 16, 2, tied: true),
        ["7B"] = Seven,
        ["14B"] = Dense(5120, 13824, 48, 40, 8, tied: false),
        ["32B"] = Dense(5120, 27648, 64, 40, 8, tied: false),
        ["72B"] = Dense(8192, 29568, 80, 64, 8, tied: false),
        ["57B-A14B"] = Seven with
        {
            IsMoe = true, VocabSize = 151936, NumExperts = 64, NumExpertsPerTok = 8, MoeIntermediateSize = 2560, SharedExpertIntermediateSize = 20480,
        },
        ["A2.7B"] = Dense(2048, 5632, 24, 16, 16, tied: false) with
        {
            IsMoe = true, VocabSize = 151936, NumExperts = 60, NumExpertsPerTok = 4, MoeIntermediateSize = 1408, SharedExpertIntermediateSize = 5632,
        },
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

    /// <summary>The tensors of a file that the recipe makes of a source in F32.</summary>
    public static IReadOnlyList<OutputTensor> Plan(Qwen2Config config, Recipe recipe, bool hasImatrix = false, RecipeOptions? options = null, List<QuantEvent>? events = null)
    {
        ModelTraits model = new(config, GgufNames.Plan(TensorCatalogue.For(config)), hasImatrix);
        TypeChooser chooser = new(recipe, options ?? new RecipeOptions(), model);
        return [.. model.Tensors.Select(tensor => new OutputTensor(tensor.Name, chooser.Choose(tensor.Name, tensor.Shape, PlainTypes.F32, events ?? []).Actual, tensor.Shape))];
    }

    public static Recipe Find(string name) => RecipeBook.BuiltIn.Find(name) ?? throw new ArgumentException(name);

    private static Qwen2Config Dense(int hidden, int intermediate, int layers, int heads, int keyValueHeads, bool tied) => Tiny with
    {
        VocabSize = tied ? 151936 : 152064,
        HiddenSize = hidden,
        IntermediateSize = intermediate,
        NumHiddenLayers = layers,
        NumAttentionHeads = heads,
        NumKeyValueHeads = keyValueHeads,
        HeadDim = hidden / heads,
        TieWordEmbeddings = tied,
    };
}
