using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Model;

/// <summary>A gated MLP: gate and up stacked in one matrix, and down.</summary>
internal sealed record FeedForwardWeights(WeightMatrix GateUp, WeightMatrix Down, int Width);

/// <summary>A mixture of experts with its shared expert.</summary>
internal sealed record ExpertWeights(WeightMatrix Router, FeedForwardWeights[] Experts, FeedForwardWeights Shared, WeightMatrix SharedGate);

/// <summary>The weights of one layer; exactly one of <see cref="Dense"/> and <see cref="Sparse"/> is there.</summary>
internal sealed class LayerWeights
{
    /// <param name="exact">As <see cref="ForwardOptions.Exact"/>.</param>
    public LayerWeights(Qwen2Config config, ITensorSource source, int layer, bool exact)
    {
        string prefix = string.Create(System.Globalization.CultureInfo.InvariantCulture, $"model.layers.{layer}.");
        AttentionNorm = source.ReadAll(Entry("input_layernorm.weight"));
        QueryKeyValue = Matrix("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight");
        if (config.QkvBias)
        {
            QueryKeyValueBias = [.. source.ReadAll(Entry("self_attn.q_proj.bias")), .. source.ReadAll(Entry("self_attn.k_proj.bias")), .. source.ReadAll(Entry("self_attn.v_proj.bias"))];
        }

        AttentionOutput = Matrix("self_attn.o_proj.weight");
        FeedForwardNorm = source.ReadAll(Entry("post_attention_layernorm.weight"));
        if (!config.IsSparse(layer))
        {
            Dense = FeedForward("mlp.", config.IntermediateSize);
            return;
        }

        FeedForwardWeights[] experts = new FeedForwardWeights[config.NumExperts];
        for (int expert = 0; expert < experts.Length; expert++)
        {
            experts[expert] = FeedForward(string.Create(System.Globalization.CultureInfo.InvariantCulture, $"mlp.experts.{expert}."), config.MoeIntermediateSize);
        }

        Sparse = new ExpertWeights(
            Matrix("mlp.gate.weight"), experts, FeedForward("mlp.shared_expert.", config.SharedExpertIntermediateSize), Matrix("mlp.shared_expert_gate.weight"));

        TensorEntry Entry(string name) => source.Find(prefix + name) ?? throw new ArgumentException($"the source has no {prefix}{name}", nameof(source));

        WeightMatrix Matrix(params string[] names) => new(source, exact, [.. names.Select(Entry)]);

        FeedForwardWeights FeedForward(string inner, int width) => new(Matrix($"{inner}gate_proj.weight", $"{inner}up_proj.weight"), Matrix($"{inner}down_proj.weight"), width);
    }

    public float[] AttentionNorm { get; }
    public WeightMatrix QueryKeyValue { get; }

    /// <summary>Empty for models without.</summary>
    public float[] QueryKeyValueBias { get; } = [];

    public WeightMatrix AttentionOutput { get; }
    public float[] FeedForwardNorm { get; }
    public FeedForwardWeights? Dense { get; }
    public ExpertWeights? Sparse { get; }

    /// <summary>The place of a norm's weight or of a bias, by its name.</summary>
    public Span<float> Vector(string name, Qwen2Config config)
    {
        if (name.EndsWith(".input_layernorm.weight", StringComparison.Ordinal)) return AttentionNorm;
        if (name.EndsWith(".post_attention_layernorm.weight", StringComparison.Ordinal)) return FeedForwardNorm;
        if (name.EndsWith(".q_proj.bias", StringComparison.Ordinal)) return QueryKeyValueBias.AsSpan(0, config.QueryWidth);
        if (name.EndsWith(".k_proj.bias", StringComparison.Ordinal)) return QueryKeyValueBias.AsSpan(config.QueryWidth, config.KeyValueWidth);
        if (name.EndsWith(".v_proj.bias", StringComparison.Ordinal)) return QueryKeyValueBias.AsSpan(config.QueryWidth + config.KeyValueWidth, config.KeyValueWidth);
        throw new ArgumentException($"the layer has no vector {name}", nameof(name));
    }

    public IEnumerable<WeightMatrix> Matrices
    {
        get
        {
            IEnumerable<WeightMatrix> attention = [QueryKeyValue, AttentionOutput];
            if (Dense is not null) return attention.Concat([Dense.GateUp, Dense.Down]);
            return attention.Concat([Sparse!.Router, Sparse.SharedGate, Sparse.Shared.GateUp, Sparse.Shared.Down])
                .Concat(Sparse.Experts.SelectMany(expert => new[] { expert.GateUp, expert.Down }));
        }
    }
}
