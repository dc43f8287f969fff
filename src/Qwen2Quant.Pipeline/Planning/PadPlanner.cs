using System.Text.Json.Nodes;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>Plans the same function with wider MLPs, for groups and tensor-parallel parts that the own width does not divide into, or with an output matrix of its own.</summary>
public static class PadPlanner
{
    /// <summary>Opens the padded view of a model. The view is to be closed; the source stays open as long.</summary>
    /// <param name="multiple">What the widths of MLPs become a multiple of, experts' too; 1 leaves them.</param>
    /// <param name="untie">Gives a tied model an output matrix.</param>
    /// <exception cref="QuantException">The source is quantized, or nothing would change.</exception>
    public static Checkpoint Open(Checkpoint source, int multiple, bool untie)
    {
        if (source.Tensors.Tensors.FirstOrDefault(entry => (source.Raw.FindStored(entry.Name) ?? entry).Type.IsQuantized) is { } quantized)
        {
            throw new QuantException(ErrorKind.InvalidInput, "a quantized model is not padded") { Rule = PipelineRules.SourceNotQuantized, Path = source.Location.Path, Tensor = quantized.Name, Remedy = "Pad the model before it is quantized, or dequantize it." };
        }

        Qwen2Config config = source.Config;
        Qwen2Config padded = config with
        {
            IntermediateSize = Padded("intermediate_size", config.IntermediateSize, source.Tensors.Catalogue.Tensors.Any(tensor => tensor.Role == TensorRole.FfnUp)),
            MoeIntermediateSize = Padded("moe_intermediate_size", config.MoeIntermediateSize, config.IsMoe),
            SharedExpertIntermediateSize = Padded("shared_expert_intermediate_size", config.SharedExpertIntermediateSize, config.IsMoe),
            TieWordEmbeddings = config.TieWordEmbeddings && !untie,
        };
        if (padded == config) throw new QuantException(ErrorKind.Usage, "there is nothing to pad") { Path = source.Location.Path, Found = $"widths that are multiples of {multiple}{(untie ? ", an output matrix" : "")}" };
        return source.Rewritten(padded, new PaddedTensors(source.Tensors, TensorCatalogue.For(padded)));

        int Padded(string key, int width, bool isUsed)
        {
            if (!isUsed) return width;
            int more = (multiple - (width % multiple)) % multiple;
            if (more <= width) return checked(width + more);
            throw new QuantException(ErrorKind.Usage, "--intermediate-multiple is more than twice a width") { Path = source.Location.Path, Tensor = key, Found = $"{width}", Expected = $"{(multiple + 1) / 2} or more for multiples of {multiple}" };
        }
    }

    /// <summary>What <see cref="Open"/> changed.</summary>
    public static IEnumerable<QuantEvent> Changes(Qwen2Config before, Qwen2Config after)
    {
        foreach ((string key, int old, int padded) in new[]
        {
            ("intermediate_size", before.IntermediateSize, after.IntermediateSize),
            ("moe_intermediate_size", before.MoeIntermediateSize, after.MoeIntermediateSize),
            ("shared_expert_intermediate_size", before.SharedExpertIntermediateSize, after.SharedExpertIntermediateSize),
        })
        {
            if (old != padded) yield return new QuantEvent("padded", $"{key}: {old} became {padded}");
        }

        if (before.TieWordEmbeddings != after.TieWordEmbeddings) yield return new QuantEvent("untied", "the embedding is written once more as lm_head.weight");
    }

    /// <summary>Plans the folder of a padded model, in the source's types.</summary>
    /// <param name="padded">Of <see cref="Open"/>.</param>
    public static ConversionPlan Plan(Checkpoint padded, string target, long maxShardBytes, RunContext context)
    {
        ConversionPlan plan = FolderPlanner.PlanConversion(padded, null, "safetensors:auto", target, maxShardBytes, context);
        return plan with { Companions = [.. plan.Companions.Select(companion => companion.Name == "config.json" ? new CompanionFile(companion.Name, FolderPlanner.WriteJson(Config(companion.Bytes, padded.Config))) : companion)] };
    }

    private static JsonObject Config(byte[] bytes, Qwen2Config config)
    {
        JsonObject json = JsonNode.Parse(bytes)!.AsObject();
        json["intermediate_size"] = config.IntermediateSize;
        json["tie_word_embeddings"] = config.TieWordEmbeddings;
        if (config.IsMoe)
        {
            json["moe_intermediate_size"] = config.MoeIntermediateSize;
            json["shared_expert_intermediate_size"] = config.SharedExpertIntermediateSize;
        }

        return json;
    }
}
