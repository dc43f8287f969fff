using System.Globalization;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Model;

/// <summary>Rule HF-70.</summary>
internal static class Qwen2ConfigChecks
{
    public static void Check(Qwen2Config config, string path, Limits limits)
    {
        Positive(config.VocabSize, "vocab_size");
        Positive(config.HiddenSize, "hidden_size");
        Positive(config.IntermediateSize, "intermediate_size");
        Positive(config.NumHiddenLayers, "num_hidden_layers");
        Positive(config.NumAttentionHeads, "num_attention_heads");
        Positive(config.NumKeyValueHeads, "num_key_value_heads");
        Positive(config.MaxPositionEmbeddings, "max_position_embeddings");
        Require(config.NumAttentionHeads % config.NumKeyValueHeads == 0, "num_key_value_heads", config.NumKeyValueHeads, $"a divisor of the {config.NumAttentionHeads} heads");
        Require(config.HeadDim > 0 && config.HeadDim % 2 == 0, "head_dim", config.HeadDim, "positive and even, as rotary positions turn pairs");
        Require((long)config.NumAttentionHeads * config.HeadDim <= int.MaxValue, "head_dim", config.HeadDim, "heads whose widths sum to 32 bits");
        Require(config.RmsNormEps is >= 0 and < 1, "rms_norm_eps", config.RmsNormEps, "from 0 to below 1");
        Require(config.RopeTheta is > 0 and < double.PositiveInfinity, "rope_theta", config.RopeTheta, "above 0");
        CheckScaling(config.RopeScaling);
        CheckDualChunks(config.DualChunkAttention);
        CheckWindows();
        if (config.IsMoe) CheckExperts();

        long perLayer = config.IsMoe ? 20 + (3L * config.NumExperts) : 12;
        Require(perLayer <= limits.TensorCount / config.NumHiddenLayers, "num_hidden_layers", config.NumHiddenLayers, $"at most {limits.TensorCount} tensors in all");

        void CheckWindows()
        {
            Require(config.MaxWindowLayers >= 0, "max_window_layers", config.MaxWindowLayers, "not negative");
            if (config.UseSlidingWindow) Positive(config.SlidingWindow, "sliding_window");
            if (config.LayerTypes is not { } types) return;
            Require(types.Count == config.NumHiddenLayers, "layer_types", types.Count, $"{config.NumHiddenLayers} entries");
            foreach (string type in types)
            {
                if (type is not ("full_attention" or "sliding_attention")) throw Refuse("layer_types", type, "full_attention or sliding_attention");
                if (type == "sliding_attention" && !config.UseSlidingWindow) throw Refuse("layer_types", "sliding_attention while use_sliding_window is false", "full_attention");
            }
        }

        void CheckExperts()
        {
            Require(config.NumExperts >= 0, "num_experts", config.NumExperts, "not negative");
            Require(config.NumExpertsPerTok > 0 && (config.NumExperts == 0 || config.NumExpertsPerTok <= config.NumExperts), "num_experts_per_tok", config.NumExpertsPerTok, $"1 to {config.NumExperts}");
            Positive(config.MoeIntermediateSize, "moe_intermediate_size");
            Positive(config.SharedExpertIntermediateSize, "shared_expert_intermediate_size");
            Positive(config.DecoderSparseStep, "decoder_sparse_step");
        }

        void CheckScaling(RopeScaling? scaling)
        {
            if (scaling is null) return;
            Require(scaling.Factor is >= 1 and < 1e6, "rope_scaling.factor", scaling.Factor, "at least 1");
            if (scaling.OriginalMaxPositionEmbeddings is { } original) Positive(original, "rope_scaling.original_max_position_embeddings");
            if (scaling.AttentionFactor is { } attention) Require(attention > 0, "rope_scaling.attention_factor", attention, "above 0");
            Require(scaling.BetaSlow > 0 && scaling.BetaFast > scaling.BetaSlow, "rope_scaling.beta_fast", scaling.BetaFast, $"above beta_slow ({scaling.BetaSlow.ToString(CultureInfo.InvariantCulture)}), which is above 0");
            Require(scaling.Type == RopeScalingType.Linear || config.RopeTheta > 1, "rope_theta", config.RopeTheta, "above 1 with this rope scaling");
        }

        void CheckDualChunks(DualChunkAttention? chunks)
        {
            if (chunks is null) return;
            const string Key = "dual_chunk_attention_config";
            Require(chunks.LocalSize >= 0, $"{Key}.local_size", chunks.LocalSize, "not negative");
            Require(chunks.ChunkSize > chunks.LocalSize, $"{Key}.chunk_size", chunks.ChunkSize, $"above local_size ({chunks.LocalSize})");
            if (chunks.OriginalMaxPositionEmbeddings is { } original) Positive(original, $"{Key}.original_max_position_embeddings");
            if (config.RopeScaling is { Type: RopeScalingType.Dynamic }) throw Refuse("rope_scaling.type", "dynamic with dual chunk attention", "one way to go beyond the trained length");
        }

        void Positive(int value, string key) => Require(value > 0, key, value, "positive");

        void Require(bool holds, string key, double value, string expected)
        {
            if (!holds) throw Refuse(key, value.ToString(CultureInfo.InvariantCulture), expected);
        }

        QuantException Refuse(string key, string found, string expected) => new(ErrorKind.InvalidInput, "the configuration describes no model: key")
        {
            Rule = ModelRules.Values, Path = path, Tensor = key, Found = found, Expected = expected,
        };
    }
}
