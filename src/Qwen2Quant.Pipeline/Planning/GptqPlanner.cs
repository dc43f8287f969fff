using System.Buffers;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>Plans a GPTQ checkpoint, as GPTQModel and AutoGPTQ lay it out: packed matrices in the layers, the rest plain.</summary>
public static class GptqPlanner
{
    /// <param name="options">How it is solved, for the configuration; null for plain rounding.</param>
    /// <exception cref="QuantException">A matrix does not fit the groups, or the source is quantized already.</exception>
    public static ConversionPlan Plan(Checkpoint source, GptqScheme scheme, GptqOptions? options, bool allowRequantize, string target, long maxShardBytes, RunContext context)
    {
        JsonObject settings = Settings(source, scheme, options);
        // What is written is what is read: the same parser says how each module is packed.
        GptqConfig config = GptqConfig.Parse(Json(settings), "quantization_config");
        Dictionary<string, (TensorEntry Part, GptqMatrix? Matrix)> byName = new(StringComparer.Ordinal);
        List<OutputTensor> outputs = [];
        foreach (CanonicalTensor tensor in source.Tensors.Catalogue.Tensors)
        {
            TensorEntry part = source.Tensors.Find(tensor.Name)!;
            if (part.Type.IsQuantized && !allowRequantize) throw Requantized(source, part);
            GptqMatrix? matrix = IsPacked(tensor) && config.Of(Module(tensor)) is { } how ? Matrix(tensor, how, target) : null;
            byName.Add(tensor.Name, (part, matrix));
            if (matrix is not null) outputs.AddRange(matrix.Tensors);
            else outputs.Add(new OutputTensor(tensor.Name, PlainType(tensor, part, config), tensor.Shape));
        }

        SafetensorsPlan plan = SafetensorsPlan.Create(outputs, new Dictionary<string, string> { ["format"] = "pt" }, maxShardBytes);
        Dictionary<string, TensorPlace> places = plan.Files.SelectMany((file, index) => file.Tensors.Select(tensor => new TensorPlace(index, tensor))).ToDictionary(place => place.Tensor.Tensor.Name, StringComparer.Ordinal);
        List<PlanItem> items = [];
        foreach (CanonicalTensor tensor in source.Tensors.Catalogue.Tensors)
        {
            (TensorEntry part, GptqMatrix? matrix) = byName[tensor.Name];
            if (matrix is null)
            {
                TensorPlace place = places[tensor.Name];
                items.Add(new PlanItem(place.FileIndex, place.Tensor, place.Tensor.Tensor.Type, [part]));
                continue;
            }

            PlannedTensor whole = new(new OutputTensor(tensor.Name, matrix.Type, tensor.Shape), 0);
            items.Add(new PlanItem(0, whole, matrix.Type, [part]) { Packing = new PackedPlace(matrix, [.. matrix.Tensors.Select(packed => places[packed.Name])]) });
        }

        List<CompanionFile> companions =
        [
            new("config.json", FolderPlanner.Config(source, items.First(item => item.Packing is null && item.Target.Tensor.Shape.Rank >= 2).Target.Tensor.Type, settings, context)),
            new(Checkpoint.QuantizeConfigName, Json(settings)),
            .. FolderPlanner.Companions(source, context),
        ];
        companions.Add(new CompanionFile(ModelCard.FileName, ModelCard.Write(source.Location.DisplayName, source.FindLicense(context), scheme.Name, Conversion.Version, items)));
        if (plan.Index is not null) companions.Add(new CompanionFile(SafetensorsPlan.IndexFileName, plan.Index));
        return new ConversionPlan { Target = target, IsFolder = true, Files = plan.Files, Companions = companions, Items = items, Events = Notes(scheme) };
    }

    private static bool IsPacked(CanonicalTensor tensor) => tensor.Role is
        TensorRole.AttentionQ or TensorRole.AttentionK or TensorRole.AttentionV or TensorRole.AttentionO or TensorRole.FfnGate or TensorRole.FfnUp or TensorRole.FfnDown
        or TensorRole.ExpertGate or TensorRole.ExpertUp or TensorRole.ExpertDown or TensorRole.SharedFfnGate or TensorRole.SharedFfnUp or TensorRole.SharedFfnDown;

    private static string Module(CanonicalTensor tensor) => tensor.Name[..tensor.Name.LastIndexOf('.')];

    /// <summary>Biases of packed matrices are halves, as their scales; the rest keeps its type.</summary>
    private static ElementType PlainType(CanonicalTensor tensor, TensorEntry part, GptqConfig config)
    {
        bool isBias = tensor.Role is TensorRole.AttentionQBias or TensorRole.AttentionKBias or TensorRole.AttentionVBias;
        if (isBias && config.Of(Module(tensor)) is not null) return PlainTypes.F16;
        return part.Type.IsQuantized ? PlainTypes.F16 : part.Type;
    }

    private static GptqMatrix Matrix(CanonicalTensor tensor, GptqSettings settings, string target)
    {
        (long rows, long length) = (tensor.Shape[0], tensor.Shape[1]);
        long group = settings.GroupLength == -1 ? length : settings.GroupLength;
        if (length % group != 0 || length % 32 != 0 || rows % 32 != 0)
        {
            int? fitting = group > 64 && length % 64 == 0 ? 64 : group > 32 && length % 32 == 0 ? 32 : null;
            throw new QuantException(ErrorKind.Usage, "a matrix does not fit the groups of the scheme")
            {
                Path = target,
                Tensor = tensor.Name,
                Found = string.Create(CultureInfo.InvariantCulture, $"{rows} rows of {length}"),
                Expected = string.Create(CultureInfo.InvariantCulture, $"rows that are a multiple of {Math.Max(group, 32)}, and a multiple of 32 of them"),
                Remedy = fitting is { } fits && rows % 32 == 0 ? string.Create(CultureInfo.InvariantCulture, $"Use groups of {fits} (g{fits}).") : "Leave it plain: --tensor-type 'NAME=plain'.",
            };
        }

        return new GptqMatrix(Module(tensor), checked((int)rows), checked((int)length), new IntegerGrid(settings.Bits, checked((int)group), settings.IsSymmetric, PlainTypes.F16, LeastZero: 1), IsFirstVersion: true);
    }

    /// <summary>What GPTQModel, AutoGPTQ, Transformers, vLLM, SGLang and TGI look for.</summary>
    private static JsonObject Settings(Checkpoint source, GptqScheme scheme, GptqOptions? options)
    {
        double damping = options is null ? 0.01 : Math.Clamp(options.Damping, 1e-6, 0.99);
        JsonObject config = new()
        {
            ["bits"] = scheme.Settings.Bits,
            ["checkpoint_format"] = "gptq",
            ["damp_percent"] = damping,
            ["desc_act"] = false,
            ["format"] = "gptq",
            ["group_size"] = scheme.Settings.GroupLength,
            ["lm_head"] = false,
            ["method"] = "gptq",
            ["pack_dtype"] = "int32",
            ["quant_method"] = "gptq",
            ["static_groups"] = scheme.UsesActivationOrder,
            ["sym"] = scheme.Settings.IsSymmetric,
            ["true_sequential"] = true,
            ["meta"] = new JsonObject { ["quantizer"] = new JsonArray((JsonNode)$"qwen2quant:{Conversion.Version}"), ["damp_percent"] = damping, ["static_groups"] = scheme.UsesActivationOrder, ["true_sequential"] = true },
        };
        if (scheme.Overrides.Count > 0)
        {
            JsonObject dynamic = [];
            foreach ((string pattern, GptqSettings? how) in scheme.Overrides)
            {
                // Readers match from the start of a name.
                string key = $"{(how is null ? "-" : "+")}:.*(?:{pattern})";
                dynamic[key] = how is null ? new JsonObject() : new JsonObject { ["bits"] = how.Bits, ["group_size"] = how.GroupLength, ["sym"] = how.IsSymmetric };
            }

            config["dynamic"] = dynamic;
        }

        if (Enumerable.Range(0, source.Config.NumHiddenLayers).Any(source.Config.IsSparse)) config["modules_in_block_to_quantize"] = Modules(source);
        return config;
    }

    /// <summary>Without this list Transformers would look for a packed router.</summary>
    private static JsonArray Modules(Checkpoint source)
    {
        string[] experts = [.. Enumerable.Range(0, source.Config.NumExperts).Select(expert => string.Create(CultureInfo.InvariantCulture, $"mlp.experts.{expert}."))];
        string[][] steps =
        [
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            ["self_attn.o_proj"],
            ["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", .. experts.SelectMany(expert => new[] { expert + "gate_proj", expert + "up_proj" })],
            ["mlp.shared_expert.down_proj", .. experts.Select(expert => expert + "down_proj")],
        ];
        return [.. steps.Select(step => (JsonNode)new JsonArray([.. step.Select(name => (JsonNode)name)]))];
    }

    private static List<QuantEvent> Notes(GptqScheme scheme)
    {
        GptqSettings settings = scheme.Settings;
        if (settings.Bits is 4 or 8 && settings.IsSymmetric) return [];
        return [new QuantEvent("few-readers", $"{scheme.Name}: recent vLLM and SGLang load 4 and 8 bits with a symmetric zero only; Transformers (GPTQModel) and TGI read this too", IsWarning: true)];
    }

    private static QuantException Requantized(Checkpoint source, TensorEntry part) => new(ErrorKind.InvalidInput, "the source is quantized already, and quantizing again adds to its error")
    {
        Rule = PipelineRules.SourceNotQuantized, Path = source.Location.Path, Tensor = part.Name, Found = part.Type.Name, Expected = "F32, F16 or BF16", Remedy = "Use the original model, or quantize with --allow-requantize.",
    };

    private static byte[] Json(JsonObject config)
    {
        ArrayBufferWriter<byte> buffer = new();
        using (Utf8JsonWriter writer = new(buffer, new JsonWriterOptions { Indented = true, NewLine = "\n" })) config.WriteTo(writer);
        buffer.Write("\n"u8);
        return buffer.WrittenSpan.ToArray();
    }
}
