using System.Globalization;
using System.Text.Json;

namespace Qwen2Quant.Benchmarks.RandomModels;

/// <summary>The metadata that llama.cpp needs to load a Qwen2 GGUF, in its converter's order.</summary>
internal static class GgufDescription
{
    private const uint BFloat16FileType = 32;
    private const int Normal = 1, Control = 3, UserDefined = 4, Unused = 5;

    /// <param name="tokenizer">Folder with a byte-level BPE tokenizer.json; without one the file can be quantized and not be run.</param>
    public static IReadOnlyList<KeyValuePair<string, object>> Metadata(ModelShape shape, string? tokenizer)
    {
        List<KeyValuePair<string, object>> metadata =
        [
            new("general.architecture", "qwen2"),
            new("general.type", "model"),
            new("general.name", $"random {shape.Name}"),
            new("qwen2.block_count", (uint)shape.LayerCount),
            new("qwen2.context_length", (uint)ModelShape.ContextLength),
            new("qwen2.embedding_length", (uint)shape.HiddenSize),
            new("qwen2.feed_forward_length", (uint)shape.IntermediateSize),
            new("qwen2.attention.head_count", (uint)shape.HeadCount),
            new("qwen2.attention.head_count_kv", (uint)shape.KeyValueHeadCount),
            new("qwen2.rope.freq_base", ModelShape.RopeTheta),
            new("qwen2.attention.layer_norm_rms_epsilon", ModelShape.RmsNormEpsilon),
            new("general.file_type", BFloat16FileType),
            new("general.quantization_version", 2u),
        ];
        if (tokenizer is not null) AddTokenizer(metadata, Path.Combine(tokenizer, "tokenizer.json"), shape.VocabularySize);
        return metadata;
    }

    private static void AddTokenizer(List<KeyValuePair<string, object>> metadata, string path, int vocabularySize)
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(path));
        JsonElement model = document.RootElement.GetProperty("model");
        string[] tokens = new string[vocabularySize];
        int[] types = new int[vocabularySize];
        for (int id = 0; id < vocabularySize; id++) (tokens[id], types[id]) = (string.Create(CultureInfo.InvariantCulture, $"[PAD{id}]"), Unused);
        foreach (JsonProperty entry in model.GetProperty("vocab").EnumerateObject()) Set(entry.Value.GetInt32(), entry.Name, Normal);
        foreach (JsonElement added in document.RootElement.GetProperty("added_tokens").EnumerateArray())
        {
            string content = added.GetProperty("content").GetString()!;
            Set(added.GetProperty("id").GetInt32(), content, added.GetProperty("special").GetBoolean() || content.StartsWith("<|", StringComparison.Ordinal) ? Control : UserDefined);
        }

        metadata.Add(new("tokenizer.ggml.model", "gpt2"));
        metadata.Add(new("tokenizer.ggml.pre", "qwen2"));
        metadata.Add(new("tokenizer.ggml.tokens", tokens));
        metadata.Add(new("tokenizer.ggml.token_type", types));
        metadata.Add(new("tokenizer.ggml.merges", model.GetProperty("merges").EnumerateArray().Select(Merge).ToArray()));
        metadata.Add(new("tokenizer.ggml.add_bos_token", false));
        int endOfText = Array.IndexOf(tokens, "<|endoftext|>");
        if (endOfText >= 0) metadata.Add(new("tokenizer.ggml.eos_token_id", (uint)endOfText));

        void Set(int id, string token, int type)
        {
            if (id >= vocabularySize) throw new IOException($"'{path}' has token {id}, and the shape has {vocabularySize} rows");
            (tokens[id], types[id]) = (token, type);
        }
    }

    /// <summary>"left right", from that or from a pair.</summary>
    private static string Merge(JsonElement merge) => merge.ValueKind == JsonValueKind.String
        ? merge.GetString()!
        : $"{merge[0].GetString()} {merge[1].GetString()}";
}
