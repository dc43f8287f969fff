using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Json;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Packed.Awq;
using Qwen2Quant.Formats.Packed.CompressedTensors;
using Qwen2Quant.Formats.Packed.Gptq;
using Qwen2Quant.Formats.Packed.Mlx;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Checkpoints;

/// <summary>The layout of a folder whose configuration says that its linear layers are packed.</summary>
internal sealed class PackedSource
{
    /// <summary>AutoGPTQ's file, which repeats the object of config.json and stands alone in older checkpoints.</summary>
    public const string GptqFileName = "quantize_config.json";

    /// <summary>AutoAWQ's file, which stands alone in older checkpoints.</summary>
    private const string AwqFileName = "quant_config.json";

    /// <summary>The layouts by the <c>quant_method</c> of their configuration.</summary>
    private static readonly Dictionary<string, Func<ConfigJson, string, Func<ITensorSource, string, IPackedModules>>> Layouts = new(StringComparer.Ordinal)
    {
        ["gptq"] = (json, path) => Gptq(GptqSettings.Read(json, path)),
        ["compressed-tensors"] = (json, path) => CompressedTensors(CtSettings.Read(json, path)),
        ["fp8"] = (json, path) => CompressedTensors(CtSettings.ReadFp8(json, path)),
        ["mlx"] = (json, path) => Mlx(MlxSettings.Read(json, path)),
        ["awq"] = (json, path) => Awq(AwqSettings.Read(json, path)),
    };

    private readonly Func<ITensorSource, string, IPackedModules> _findModules;

    private PackedSource(Func<ITensorSource, string, IPackedModules> findModules) => _findModules = findModules;

    /// <summary>The layout that a folder's configuration names; null for plain weights.</summary>
    /// <exception cref="QuantException">HF-74: a layout that is not read. PK-1.</exception>
    public static PackedSource? Find(Qwen2Config config, byte[] configJson, string folder, IReadOnlyList<string> names, IFileLayer files, RunContext context)
    {
        string configPath = Path.Combine(folder, "config.json");
        if (config.QuantizationMethod is { } method)
        {
            ConfigJson json = ConfigJson.Parse(configJson, configPath, context.Limits, PackedRules.Configuration);
            if (Layouts.TryGetValue(method, out var open)) return new PackedSource(open((method == "mlx" ? json.Object("quantization") : null) ?? json.Object("quantization_config")!, configPath));
            throw new QuantException(ErrorKind.Unsupported, "the weights are packed in a layout that is not read")
            {
                Rule = PipelineRules.SourceNotQuantized,
                Path = configPath,
                Found = method,
                Expected = $"{string.Join(", ", Layouts.Keys)}, or F32, F16 or BF16 weights",
                Remedy = "Use the model that this one was quantized from.",
            };
        }

        foreach ((string name, string layout) in new[] { (GptqFileName, "gptq"), (AwqFileName, "awq") })
        {
            if (!names.Contains(name)) continue;
            string path = Path.Combine(folder, name);
            return new PackedSource(Layouts[layout](ConfigJson.Parse(files.ReadAllBytes(path, context.Limits.JsonFileBytes), path, context.Limits, PackedRules.Configuration), path));
        }

        return null;
    }

    /// <summary>Views the container as its matrices; the view owns it, and it is closed when this throws.</summary>
    public ITensorSource Open(SafetensorsCheckpoint weights, string folder)
    {
        try
        {
            return PackedCheckpoint.Over(weights, _findModules(weights, folder), folder);
        }
        catch
        {
            weights.Dispose();
            throw;
        }
    }

    private static Func<ITensorSource, string, IPackedModules> Gptq(GptqSettings settings) => (source, folder) => new GptqModules(source, settings, folder);

    private static Func<ITensorSource, string, IPackedModules> Awq(AwqSettings settings) => (source, folder) => new AwqModules(source, settings, folder);

    private static Func<ITensorSource, string, IPackedModules> CompressedTensors(CtSettings settings) => (source, folder) => new CtModules(source, settings, folder);

    private static Func<ITensorSource, string, IPackedModules> Mlx(MlxSettings settings) => (source, folder) => new MlxModules(source, settings, folder);
}
