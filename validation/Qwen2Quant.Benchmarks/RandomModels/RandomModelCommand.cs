using System.Buffers;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Benchmarks.RandomModels;

/// <summary>Writes a checkpoint of random weights with the names, shapes and files of a published one.</summary>
public static class RandomModelCommand
{
    private const long DefaultShardBytes = 5_000_000_000;

    private static readonly string[] TokenizerFiles =
        ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "generation_config.json", "chat_template.jinja"];

    public static void Run(CommandArguments arguments)
    {
        string shapeName = arguments.Text("--shape") ?? throw new UsageException("--shape is needed");
        string folder = arguments.Text("--out") ?? throw new UsageException("--out is needed");
        ModelShape shape = ModelShape.All.FirstOrDefault(known => known.Name.Equals(shapeName, StringComparison.OrdinalIgnoreCase))
            ?? throw new UsageException($"no shape '{shapeName}': {string.Join(", ", ModelShape.All.Select(known => known.Name))}");
        shape = shape with { LayerCount = arguments.Number("--layers", shape.LayerCount, 1) };
        string format = arguments.Text("--format") ?? "safetensors";
        if (format is not ("safetensors" or "gguf")) throw new UsageException($"no format '{format}': safetensors, gguf");
        ulong seed = arguments.Number("--seed", 1UL, 0UL);
        int threadCount = arguments.Number("--threads", 2, 1);
        long shardBytes = arguments.Number("--shard-size", format == "gguf" ? long.MaxValue : DefaultShardBytes, 1L);
        if (format == "gguf" && shardBytes != long.MaxValue) throw new UsageException("--shard-size is for safetensors");
        string? tokenizer = arguments.Text("--tokenizer");
        arguments.Finish(0);
        if (Directory.Exists(folder) && Directory.EnumerateFileSystemEntries(folder).Any()) throw new IOException($"'{folder}' is not empty");

        long start = Stopwatch.GetTimestamp();
        RandomModel model = new(shape, seed, format == "gguf");
        Directory.CreateDirectory(folder);
        IReadOnlyList<PlannedFile> files = format == "gguf" ? PlanGguf(model, shape, tokenizer) : PlanSafetensors(model, shape, tokenizer, shardBytes, folder);
        foreach (PlannedFile file in files) PlannedFileFiller.Write(folder, file, model.Fill, threadCount);

        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        long byteLength = files.Sum(file => file.ByteLength);
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{{\"parameters\": {model.Tensors.Sum(tensor => tensor.Shape.ValueCount)}, \"files\": {files.Count}, \"bytes\": {byteLength}, \"seconds\": {seconds:F2}}}"));
    }

    private static IReadOnlyList<PlannedFile> PlanGguf(RandomModel model, ModelShape shape, string? tokenizer) =>
        [Planning.Gguf(GgufDescription.Metadata(shape, tokenizer), model.Tensors, "model-BF16.gguf")];

    private static IReadOnlyList<PlannedFile> PlanSafetensors(RandomModel model, ModelShape shape, string? tokenizer, long shardBytes, string folder)
    {
        (IReadOnlyList<PlannedFile> files, byte[]? index) = Planning.Safetensors(model.Tensors, shardBytes);
        File.WriteAllBytes(Path.Combine(folder, "config.json"), Config(shape));
        if (index is not null) File.WriteAllBytes(Path.Combine(folder, "model.safetensors.index.json"), index);
        if (tokenizer is null) return files;
        string[] present = [.. TokenizerFiles.Where(name => File.Exists(Path.Combine(tokenizer, name)))];
        if (present.Length == 0) throw new IOException($"'{tokenizer}' holds no tokenizer");
        foreach (string name in present) File.Copy(Path.Combine(tokenizer, name), Path.Combine(folder, name));
        return files;
    }

    private static byte[] Config(ModelShape shape)
    {
        ArrayBufferWriter<byte> json = new();
        using (Utf8JsonWriter writer = new(json, new JsonWriterOptions { Indented = true }))
        {
            writer.WriteStartObject();
            writer.WriteStartArray("architectures");
            writer.WriteStringValue("Qwen2ForCausalLM");
            writer.WriteEndArray();
            writer.WriteString("model_type", "qwen2");
            writer.WriteString("hidden_act", "silu");
            writer.WriteNumber("hidden_size", shape.HiddenSize);
            writer.WriteNumber("intermediate_size", shape.IntermediateSize);
            writer.WriteNumber("num_hidden_layers", shape.LayerCount);
            writer.WriteNumber("num_attention_heads", shape.HeadCount);
            writer.WriteNumber("num_key_value_heads", shape.KeyValueHeadCount);
            writer.WriteNumber("vocab_size", shape.VocabularySize);
            writer.WriteNumber("max_position_embeddings", ModelShape.ContextLength);
            writer.WriteNumber("rms_norm_eps", ModelShape.RmsNormEpsilon);
            writer.WriteNumber("rope_theta", ModelShape.RopeTheta);
            writer.WriteBoolean("tie_word_embeddings", shape.TieWordEmbeddings);
            writer.WriteBoolean("use_sliding_window", false);
            writer.WriteString("torch_dtype", "bfloat16");
            writer.WriteEndObject();
        }

        return json.WrittenSpan.ToArray();
    }
}
