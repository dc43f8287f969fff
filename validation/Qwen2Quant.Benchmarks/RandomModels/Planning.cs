using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Safetensors;

namespace Qwen2Quant.Benchmarks.RandomModels;

/// <summary>Lays tensors out in safetensors shards or in one GGUF file.</summary>
internal static class Planning
{
    /// <summary>The shards, and the bytes of <c>model.safetensors.index.json</c>, null where one file holds all.</summary>
    public static (IReadOnlyList<PlannedFile> Files, byte[]? Index) Safetensors(IReadOnlyList<OutputTensor> tensors, long maxShardBytes)
    {
        SafetensorsPlan plan = SafetensorsPlan.Create(tensors, new Dictionary<string, string> { ["format"] = "pt" }, maxShardBytes);
        return (plan.Files, plan.Index);
    }

    /// <param name="metadata">Values are <see cref="string"/>, <see cref="uint"/>, <see cref="float"/>, <see cref="bool"/>, string[] or int[].</param>
    public static PlannedFile Gguf(IReadOnlyList<KeyValuePair<string, object>> metadata, IReadOnlyList<OutputTensor> tensors, string fileName)
    {
        GgufMetadata values = new();
        foreach ((string key, object value) in metadata) values.Set(key, Value(value));
        return GgufPlan.Create(values, tensors, fileName);
    }

    private static GgufValue Value(object value) => value switch
    {
        uint number => GgufValue.Scalar(number),
        float number => GgufValue.Scalar(number),
        bool flag => GgufValue.Scalar(flag),
        string text => GgufValue.String(text),
        string[] texts => GgufValue.StringArray(texts),
        int[] numbers => GgufValue.Array<int>(numbers),
        _ => throw new ArgumentException($"no GGUF value for {value.GetType().Name}", nameof(value)),
    };
}
