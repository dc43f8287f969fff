using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Pipeline.Recipes;

/// <summary>The categories by which recipes name tensors, told from GGUF names as llama-quantize does.</summary>
public static class TensorCategory
{
    public const string OutputName = "output.weight";
    public const string EmbeddingName = "token_embd.weight";
    public const string Output = "output";
    private const string Embedding = "token_embd";

    /// <summary>Name fragments in the order in which they are tried; the category is the fragment itself.</summary>
    private static readonly string[] LayerCategories = ["attn_v", "attn_k", "attn_q", "attn_output", "ffn_up", "ffn_gate", "ffn_down"];

    /// <summary>Every category.</summary>
    public static IReadOnlyList<string> All { get; } = [Output, Embedding, .. LayerCategories];

    /// <summary>The category of a quantizable tensor, or null for one in none. In tied models the token embedding is the output.</summary>
    public static string? Of(string ggufName, bool isTied) => ggufName switch
    {
        OutputName => Output,
        EmbeddingName => isTied ? Output : Embedding,
        _ => LayerCategories.FirstOrDefault(category => ggufName.Contains(category, StringComparison.Ordinal)),
    };

    /// <summary>
    /// True for tensors that take the recipe's types: matrices whose names end in <c>weight</c>, except norms and routers.
    /// The others stay as they are.
    /// </summary>
    public static bool IsQuantizable(string ggufName, Shape shape) =>
        SignificantRank(shape) >= 2
        && ggufName.EndsWith("weight", StringComparison.Ordinal)
        && !ggufName.Contains("_norm.weight", StringComparison.Ordinal)
        && !ggufName.Contains("ffn_gate_inp.weight", StringComparison.Ordinal);

    /// <summary>Dimensions without ones on the outside: a stored [1, n] is a vector.</summary>
    private static int SignificantRank(Shape shape)
    {
        int leadingOnes = 0;
        while (leadingOnes < shape.Rank - 1 && shape[leadingOnes] == 1) leadingOnes++;
        return shape.Rank - leadingOnes;
    }
}
