using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.Support;

/// <summary>Models that the tests convert, and ways to look into what came out.</summary>
public static class Models
{
    public const string Tiny = "builtin:tiny";

    /// <summary>The files that <see cref="Tiny"/> is made of, as a checkpoint folder.</summary>
    public static string TinyFolder { get; } = Path.Combine(Repository.Root, "src", "Qwen2Quant.Pipeline", "Builtin", "tiny");

    /// <summary>Random weights of 2 bytes each: four of these layers hold 31 MB.</summary>
    public static Qwen2Config Wide(int layers) => TestCheckpoint.Small with
    {
        HiddenSize = 512,
        IntermediateSize = 2048,
        NumHiddenLayers = layers,
        NumAttentionHeads = 8,
        NumKeyValueHeads = 4,
        HeadDim = 64,
        MaxWindowLayers = layers,
    };

    public static Checkpoint Open(string path) => Checkpoint.Open(path, new RunContext());

    public static GgufFile OpenGguf(string path) => GgufFile.Open(DiskFileLayer.Instance, path, new ReadOptions());

    public static byte[] Bytes(ITensorSource source, TensorEntry entry)
    {
        byte[] bytes = new byte[entry.ByteLength];
        source.ReadRaw(entry, 0, bytes);
        return bytes;
    }
}
