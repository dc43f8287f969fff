using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Pipeline.Checkpoints;

/// <summary>The models inside this program: real ones, small enough to carry.</summary>
public static class BuiltInModels
{
    /// <summary>Names after <c>builtin:</c>.</summary>
    public static IReadOnlyList<string> Names { get; } = ["tiny"];

    /// <summary>A file of a built-in model, or null when it has none of that name.</summary>
    public static byte[]? Read(string model, string fileName)
    {
        using Stream? stream = typeof(BuiltInModels).Assembly.GetManifestResourceStream($"builtin/{model}/{fileName}");
        if (stream is null) return null;
        byte[] bytes = new byte[stream.Length];
        stream.ReadExactly(bytes);
        return bytes;
    }

    /// <summary>The weights of a built-in model as a file.</summary>
    public static IReadFile OpenWeights(string model) => new MemoryReadFile($"builtin:{model}/model.safetensors", Read(model, "model.safetensors")!);
}
