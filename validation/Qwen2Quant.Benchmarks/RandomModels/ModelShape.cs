using Qwen2Quant.Model;

namespace Qwen2Quant.Benchmarks.RandomModels;

/// <summary>Dimensions of a published Qwen2 or Qwen2.5 model, as its config.json gives them.</summary>
public sealed record ModelShape(
    string Name, int HiddenSize, int IntermediateSize, int LayerCount, int HeadCount, int KeyValueHeadCount, int VocabularySize, bool TieWordEmbeddings)
{
    public const float RmsNormEpsilon = 1e-6f;
    public const float RopeTheta = 1_000_000;
    public const int ContextLength = 32768;

    public static IReadOnlyList<ModelShape> All { get; } =
    [
        new("tiny", 256, 512, 3, 4, 2, 2048, TieWordEmbeddings: true),
        new("0.5B", 896, 4864, 24, 14, 2, 151936, TieWordEmbeddings: true),
        new("1.5B", 1536, 8960, 28, 12, 2, 151936, TieWordEmbeddings: true),
        new("7B", 3584, 18944, 28, 28, 4, 152064, TieWordEmbeddings: false),
        new("72B", 8192, 29568, 80, 64, 8, 152064, TieWordEmbeddings: false),
    ];

    public int KeyValueSize => HiddenSize / HeadCount * KeyValueHeadCount;

    /// <summary>The configuration that a checkpoint of this shape has.</summary>
    public Qwen2Config ToConfig() => new()
    {
        VocabSize = VocabularySize,
        HiddenSize = HiddenSize,
        IntermediateSize = IntermediateSize,
        NumHiddenLayers = LayerCount,
        NumAttentionHeads = HeadCount,
        NumKeyValueHeads = KeyValueHeadCount,
        HeadDim = HiddenSize / HeadCount,
        MaxPositionEmbeddings = ContextLength,
        MaxWindowLayers = LayerCount,
        RopeTheta = RopeTheta,
        TieWordEmbeddings = TieWordEmbeddings,
        TorchDtype = "bfloat16",
    };
}
