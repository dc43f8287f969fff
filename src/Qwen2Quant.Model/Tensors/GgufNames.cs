using System.Globalization;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Model;

/// <summary>A tensor of a GGUF file and the canonical tensors that make it: one, or all experts of a layer in order.</summary>
/// <param name="Shape">Outermost first; stacked experts are [experts, outputs, inputs], the shared expert's gate is one dimension as llama-quantize leaves it.</param>
/// <param name="Parts">Their bytes follow one another.</param>
/// <param name="IsKeptF32">Never encoded: vectors, norms, routers and biases (convert_hf_to_gguf.py).</param>
public sealed record GgufTensor(string Name, Shape Shape, IReadOnlyList<CanonicalTensor> Parts, bool IsKeptF32);

/// <summary>Names of tensors in Hugging Face's and in GGUF's spelling (gguf-py, tensor_mapping.py).</summary>
public static class GgufNames
{
    private const string LayerPrefix = "model.layers.";
    private const string BlockPrefix = "blk.";
    private const string ExpertsPrefix = "mlp.experts.";

    private static readonly (string HuggingFace, string Gguf)[] Outer =
    [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
    ];

    private static readonly (string HuggingFace, string Gguf)[] Inner =
    [
        ("input_layernorm.weight", "attn_norm.weight"),
        ("self_attn.q_proj.weight", "attn_q.weight"),
        ("self_attn.q_proj.bias", "attn_q.bias"),
        ("self_attn.k_proj.weight", "attn_k.weight"),
        ("self_attn.k_proj.bias", "attn_k.bias"),
        ("self_attn.v_proj.weight", "attn_v.weight"),
        ("self_attn.v_proj.bias", "attn_v.bias"),
        ("self_attn.o_proj.weight", "attn_output.weight"),
        ("post_attention_layernorm.weight", "ffn_norm.weight"),
        ("mlp.gate_proj.weight", "ffn_gate.weight"),
        ("mlp.up_proj.weight", "ffn_up.weight"),
        ("mlp.down_proj.weight", "ffn_down.weight"),
        ("mlp.gate.weight", "ffn_gate_inp.weight"),
        ("mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight"),
        ("mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight"),
        ("mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight"),
        ("mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight"),
    ];

    // The part of an expert's name after its index.
    private static readonly (string HuggingFace, string Gguf)[] Experts =
    [
        ("gate_proj.weight", "ffn_gate_exps.weight"),
        ("up_proj.weight", "ffn_up_exps.weight"),
        ("down_proj.weight", "ffn_down_exps.weight"),
    ];

    /// <summary>GGUF's name of a canonical tensor, with the expert's place in the stack for routed experts; null for names that Qwen2 does not have.</summary>
    public static (string Name, int? Expert)? FromHuggingFace(string name)
    {
        foreach ((string huggingFace, string gguf) in Outer)
        {
            if (name == huggingFace) return (gguf, null);
        }

        if (!TrySplit(name, LayerPrefix, out int layer, out string inner)) return null;
        string block = string.Create(CultureInfo.InvariantCulture, $"{BlockPrefix}{layer}.");
        foreach ((string huggingFace, string gguf) in Inner)
        {
            if (inner == huggingFace) return (block + gguf, null);
        }

        if (!TrySplit(inner, ExpertsPrefix, out int expert, out string projection)) return null;
        foreach ((string huggingFace, string gguf) in Experts)
        {
            if (projection == huggingFace) return (block + gguf, expert);
        }

        return null;
    }

    /// <summary>The canonical name of a GGUF tensor, or of one expert of a stacked one; null for names that Qwen2 does not have, or when the expert is missing or out of place.</summary>
    public static string? ToHuggingFace(string name, int? expert = null)
    {
        foreach ((string huggingFace, string gguf) in Outer)
        {
            if (name == gguf) return expert is null ? huggingFace : null;
        }

        if (!TrySplit(name, BlockPrefix, out int layer, out string inner)) return null;
        string prefix = string.Create(CultureInfo.InvariantCulture, $"{LayerPrefix}{layer}.");
        foreach ((string huggingFace, string gguf) in expert is null ? Inner : Experts)
        {
            if (inner != gguf) continue;
            return expert is null ? prefix + huggingFace : string.Create(CultureInfo.InvariantCulture, $"{prefix}{ExpertsPrefix}{expert}.{huggingFace}");
        }

        return null;
    }

    /// <summary>The tensors of a GGUF file, in llama-quantize's order: those outside the blocks first, then block by block, by name inside.</summary>
    public static IReadOnlyList<GgufTensor> Plan(TensorCatalogue catalogue)
    {
        Dictionary<string, List<CanonicalTensor>> parts = new(StringComparer.Ordinal);
        foreach (CanonicalTensor tensor in catalogue.Tensors)
        {
            string name = FromHuggingFace(tensor.Name)!.Value.Name;
            if (!parts.TryGetValue(name, out List<CanonicalTensor>? list)) parts.Add(name, list = []);
            list.Add(tensor);
        }

        return
        [
            .. parts.OrderBy(part => part.Value[0].Layer).ThenBy(part => part.Key, StringComparer.Ordinal)
                .Select(part => new GgufTensor(part.Key, StackedShape(part.Value), part.Value, IsKeptF32(part.Key, part.Value[0]))),
        ];
    }

    private static Shape StackedShape(List<CanonicalTensor> parts)
    {
        CanonicalTensor first = parts[0];
        if (first.Role == TensorRole.SharedExpertGate) return new Shape(first.Shape.RowLength);
        return first.Role.IsExpert() ? new Shape(parts.Count, first.Shape[0], first.Shape[1]) : first.Shape;
    }

    private static bool IsKeptF32(string name, CanonicalTensor tensor) =>
        tensor.Shape.Rank == 1 || !name.EndsWith(".weight", StringComparison.Ordinal) || tensor.Role is TensorRole.Router or TensorRole.SharedExpertGate;

    // "<prefix><number>.<rest>", the number as our own writer would spell it.
    private static bool TrySplit(string name, string prefix, out int number, out string rest)
    {
        (number, rest) = (0, "");
        if (!name.StartsWith(prefix, StringComparison.Ordinal)) return false;
        int dot = name.IndexOf('.', prefix.Length);
        if (dot < 0) return false;
        ReadOnlySpan<char> digits = name.AsSpan(prefix.Length, dot - prefix.Length);
        if (!int.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out number) || (digits[0] == '0' && digits.Length > 1)) return false;
        rest = name[(dot + 1)..];
        return true;
    }
}
