using System.Text.Json;

namespace Qwen2Quant.Model;

/// <summary><see cref="Qwen2Config"/> to config.json.</summary>
internal static class Qwen2ConfigWriter
{
    public static byte[] Write(Qwen2Config config)
    {
        using MemoryStream stream = new();
        using (Utf8JsonWriter json = new(stream, new JsonWriterOptions { Indented = true, NewLine = "\n" }))
        {
            json.WriteStartObject();
            WriteKeys(json, config);
            json.WriteEndObject();
        }

        stream.WriteByte((byte)'\n');
        return stream.ToArray();
    }

    private static void WriteKeys(Utf8JsonWriter json, Qwen2Config config)
    {
        json.WriteStartArray("architectures");
        json.WriteStringValue(config.Architecture);
        json.WriteEndArray();
        json.WriteNumber("attention_dropout", config.AttentionDropout);
        WriteOptional(json, "bos_token_id", config.BosTokenId);
        if (config.IsMoe) json.WriteNumber("decoder_sparse_step", config.DecoderSparseStep);
        if (config.DualChunkAttention is { } chunks) WriteDualChunks(json, chunks);
        WriteEos(json, config.EosTokenIds);
        if ((long)config.HeadDim * config.NumAttentionHeads != config.HiddenSize) json.WriteNumber("head_dim", config.HeadDim);
        json.WriteString("hidden_act", "silu");
        json.WriteNumber("hidden_size", config.HiddenSize);
        json.WriteNumber("initializer_range", config.InitializerRange);
        json.WriteNumber("intermediate_size", config.IntermediateSize);
        if (config.LayerTypes is { } types)
        {
            json.WriteStartArray("layer_types");
            foreach (string type in types) json.WriteStringValue(type);
            json.WriteEndArray();
        }

        json.WriteNumber("max_position_embeddings", config.MaxPositionEmbeddings);
        json.WriteNumber("max_window_layers", config.MaxWindowLayers);
        if (config.IsMoe) WriteExperts(json, config);
        json.WriteString("model_type", config.ModelType);
        json.WriteNumber("num_attention_heads", config.NumAttentionHeads);
        json.WriteNumber("num_hidden_layers", config.NumHiddenLayers);
        json.WriteNumber("num_key_value_heads", config.NumKeyValueHeads);
        WriteOptional(json, "pad_token_id", config.PadTokenId);
        if (!config.QkvBias) json.WriteBoolean("qkv_bias", false);
        json.WriteNumber("rms_norm_eps", config.RmsNormEps);
        if (config.RopeScaling is { } scaling) WriteScaling(json, scaling);
        json.WriteNumber("rope_theta", config.RopeTheta);
        json.WriteNumber("sliding_window", config.SlidingWindow);
        json.WriteBoolean("tie_word_embeddings", config.TieWordEmbeddings);
        if (config.TorchDtype is { } dtype) json.WriteString("torch_dtype", dtype);
        if (config.TransformersVersion is { } version) json.WriteString("transformers_version", version);
        json.WriteBoolean("use_cache", config.UseCache);
        json.WriteBoolean("use_sliding_window", config.UseSlidingWindow);
        json.WriteNumber("vocab_size", config.VocabSize);
    }

    private static void WriteExperts(Utf8JsonWriter json, Qwen2Config config)
    {
        json.WriteStartArray("mlp_only_layers");
        foreach (int layer in config.MlpOnlyLayers) json.WriteNumberValue(layer);
        json.WriteEndArray();
        json.WriteNumber("moe_intermediate_size", config.MoeIntermediateSize);
        json.WriteBoolean("norm_topk_prob", config.NormTopkProb);
        json.WriteNumber("num_experts", config.NumExperts);
        json.WriteNumber("num_experts_per_tok", config.NumExpertsPerTok);
        json.WriteBoolean("output_router_logits", config.OutputRouterLogits);
        json.WriteNumber("router_aux_loss_coef", config.RouterAuxLossCoef);
        json.WriteNumber("shared_expert_intermediate_size", config.SharedExpertIntermediateSize);
    }

    // Both spellings of the type: readers before and after Transformers 4.43 look for one each.
    private static void WriteScaling(Utf8JsonWriter json, RopeScaling scaling)
    {
        json.WriteStartObject("rope_scaling");
        json.WriteString("type", scaling.TypeName);
        json.WriteString("rope_type", scaling.TypeName);
        json.WriteNumber("factor", scaling.Factor);
        WriteOptional(json, "original_max_position_embeddings", scaling.OriginalMaxPositionEmbeddings);
        if (scaling.Type == RopeScalingType.Yarn)
        {
            if (scaling.AttentionFactor is { } factor) json.WriteNumber("attention_factor", factor);
            if (scaling.BetaFast != 32) json.WriteNumber("beta_fast", scaling.BetaFast);
            if (scaling.BetaSlow != 1) json.WriteNumber("beta_slow", scaling.BetaSlow);
            if (!scaling.Truncate) json.WriteBoolean("truncate", false);
        }

        json.WriteEndObject();
    }

    private static void WriteDualChunks(Utf8JsonWriter json, DualChunkAttention chunks)
    {
        json.WriteStartObject("dual_chunk_attention_config");
        json.WriteNumber("chunk_size", chunks.ChunkSize);
        json.WriteNumber("local_size", chunks.LocalSize);
        WriteOptional(json, "original_max_position_embeddings", chunks.OriginalMaxPositionEmbeddings);
        json.WriteEndObject();
    }

    private static void WriteEos(Utf8JsonWriter json, IReadOnlyList<int> ids)
    {
        if (ids.Count == 1) json.WriteNumber("eos_token_id", ids[0]);
        if (ids.Count < 2) return;
        json.WriteStartArray("eos_token_id");
        foreach (int id in ids) json.WriteNumberValue(id);
        json.WriteEndArray();
    }

    private static void WriteOptional(Utf8JsonWriter json, string key, int? value)
    {
        if (value is { } number) json.WriteNumber(key, number);
    }
}
