namespace Qwen2Quant.Pipeline.Recipes;

/// <summary>
/// The categories by which recipes name tensors, told from GGUF names as llama-quantize does: <c>output</c> (in tied models the
/// token embedding is the output), <c>token_embd</c>, <c>attn_v</c>, <c>attn_k</c>, <c>attn_q</c>, <c>attn_output</c>, <c>ffn_up</c>,
/// <c>ffn_gate</c>, <c>ffn_down</c>.
/// </summary>
public static class TensorCategory
{
    /// <summary>Name fragments in the order in which they are tried; the category is the fragment itself.</summary>
    private static readonly string[] LayerCategories = ["attn_v", "attn_k", "attn_q", "attn_output", "ffn_up", "ffn_gate", "ffn_down"];

    /// <summary>The category of a quantizable tensor, or null for one in none.</summary>
    public static string? Of(string ggufName, bool isTied) => ggufName switch
    {
        "output.weight" => "output",
        "token_embd.weight" => isTied ? "output" : "token_embd",
        _ => LayerCategories.FirstOrDefault(category => ggufName.Contains(category, StringComparison.Ordinal)),
    };

    /// <summary>
    /// True for tensors that take the recipe's types: matrices whose names end in <c>weight</c>, except norms and routers.
    /// The others stay as they are.
    /// </summary>
    public static bool IsQuantizable(string ggufName, int significantRank) =>
        significantRank >= 2
        && ggufName.EndsWith("weight", StringComparison.Ordinal)
        && !ggufName.Contains("_norm.weight", StringComparison.Ordinal)
        && !ggufName.Contains("ffn_gate_inp.weight", StringComparison.Ordinal);
}
