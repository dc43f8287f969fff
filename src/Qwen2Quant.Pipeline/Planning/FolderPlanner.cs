using System.Buffers;
using System.Text.Json;
using System.Text.Json.Nodes;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>Plans a Hugging Face folder: safetensors shards with their index, configuration, tokenizer files.</summary>
public static class FolderPlanner
{
    private static readonly Dictionary<string, string> TorchNames = new(StringComparer.Ordinal) { ["F32"] = "float32", ["F16"] = "float16", ["BF16"] = "bfloat16" };

    /// <summary>Plans a conversion to one plain type; null keeps each tensor's own.</summary>
    /// <param name="scheme">What was asked for, for the model card.</param>
    /// <exception cref="QuantException">A tensor would have a type that safetensors folders do not hold.</exception>
    public static ConversionPlan PlanConversion(Checkpoint source, ElementType? type, string scheme, string target, long maxShardBytes, RunContext context)
    {
        List<(OutputTensor Output, TensorEntry Part)> tensors = [];
        foreach (TensorEntry entry in source.Tensors.Tensors)
        {
            ElementType actual = type ?? entry.Type;
            if (actual.IsQuantized || !actual.CanEncode)
            {
                throw new QuantException(ErrorKind.Usage, "safetensors folders hold plain types here")
                {
                    Path = source.Location.Path,
                    Tensor = entry.Name,
                    Found = actual.Name,
                    Remedy = "Pass --type bf16, f16 or f32.",
                };
            }

            tensors.Add((new OutputTensor(entry.Name, actual, entry.Shape), entry));
        }

        SafetensorsPlan plan = SafetensorsPlan.Create([.. tensors.Select(tensor => tensor.Output)], new Dictionary<string, string> { ["format"] = "pt" }, maxShardBytes);
        Dictionary<string, TensorEntry> parts = tensors.ToDictionary(tensor => tensor.Output.Name, tensor => tensor.Part, StringComparer.Ordinal);
        List<PlanItem> items = [];
        for (int file = 0; file < plan.Files.Count; file++)
        {
            items.AddRange(plan.Files[file].Tensors.Select(planned => new PlanItem(file, planned, planned.Tensor.Type, [parts[planned.Tensor.Name]])));
        }

        ElementType matrices = tensors.First(tensor => tensor.Output.Shape.Rank >= 2).Output.Type;
        List<CompanionFile> companions = [new("config.json", WriteJson(Config(source, matrices, context))), .. Companions(source, context)];
        companions.Add(new CompanionFile(ModelCard.FileName, ModelCard.Write(source.Location.DisplayName, source.FindLicense(context), scheme, Conversion.Version, items)));
        if (plan.Index is not null) companions.Add(new CompanionFile(SafetensorsPlan.IndexFileName, plan.Index));
        return new ConversionPlan
        {
            Target = target,
            IsFolder = true,
            Files = plan.Files,
            Companions = companions,
            Items = items,
            Events = [],
        };
    }

    /// <summary>The source's config.json for an output of that plain type.</summary>
    internal static JsonObject Config(Checkpoint source, ElementType type, RunContext context)
    {
        byte[] json = source.ReadCompanion("config.json", context) ?? source.Config.ToJson();
        JsonObject config = JsonNode.Parse(json)!.AsObject();
        config.Remove("quantization_config");
        config.Remove("quantization");
        if (config.ContainsKey("dtype")) config["dtype"] = TorchNames[type.Name];
        if (config.ContainsKey("torch_dtype") || !config.ContainsKey("dtype")) config["torch_dtype"] = TorchNames[type.Name];
        return config;
    }

    /// <summary>An object as its file.</summary>
    internal static byte[] WriteJson(JsonObject json)
    {
        ArrayBufferWriter<byte> buffer = new();
        using (Utf8JsonWriter writer = new(buffer, new JsonWriterOptions { Indented = true, NewLine = "\n" })) json.WriteTo(writer);
        buffer.Write("\n"u8);
        return buffer.WrittenSpan.ToArray();
    }

    /// <summary>Tokenizer, generation settings and licence: the source's own files, or what a GGUF file says in their form.</summary>
    internal static IEnumerable<CompanionFile> Companions(Checkpoint source, RunContext context)
    {
        if (source.Gguf is null)
        {
            foreach (string name in source.CompanionNames) yield return new CompanionFile(name, source.ReadCompanion(name, context)!);
            yield break;
        }

        TokenizerDefinition tokenizer = source.Tokenizer;
        yield return Write("tokenizer.json", output => TokenizerJson.Write(tokenizer, output));
        yield return Write("tokenizer_config.json", output => TokenizerConfigJson.Write(tokenizer, source.Config.MaxPositionEmbeddings, output));
        yield return Write("vocab.json", output => VocabMerges.WriteVocabulary(tokenizer, output));
        yield return Write("merges.txt", output => VocabMerges.WriteMerges(tokenizer, output));
        yield return Write("generation_config.json", output => WriteGeneration(source, output));
    }

    private static CompanionFile Write(string name, Action<ArrayBufferWriter<byte>> write)
    {
        ArrayBufferWriter<byte> output = new();
        write(output);
        return new CompanionFile(name, output.WrittenSpan.ToArray());
    }

    private static void WriteGeneration(Checkpoint source, ArrayBufferWriter<byte> output)
    {
        using Utf8JsonWriter writer = new(output, new JsonWriterOptions { Indented = true, NewLine = "\n" });
        writer.WriteStartObject();
        if (source.Tokenizer.BosId is { } bos) writer.WriteNumber("bos_token_id", bos);
        if (source.Tokenizer.EosId is { } eos) writer.WriteNumber("eos_token_id", eos);
        if (source.Tokenizer.PaddingId is { } padding) writer.WriteNumber("pad_token_id", padding);
        if (source.Gguf!.Metadata.TryGetInteger("general.sampling.top_k", out int topK)) writer.WriteNumber("top_k", topK);
        if (source.Gguf.Metadata.TryGetFloat("general.sampling.top_p", out float topP)) writer.WriteNumber("top_p", topP);
        if (source.Gguf.Metadata.TryGetFloat("general.sampling.temp", out float temperature)) writer.WriteNumber("temperature", temperature);
        writer.WriteEndObject();
    }
}
