using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;

namespace Qwen2Quant.Tests.Support;

/// <summary>Random checkpoints of any configuration, as folders; the tokenizer is the built-in model's.</summary>
public static class TestCheckpoint
{
    /// <summary>Two layers of width 64: everything that a Qwen2 has, in a hundred kilobytes.</summary>
    public static Qwen2Config Small { get; } = new()
    {
        VocabSize = 2048,
        HiddenSize = 64,
        IntermediateSize = 96,
        NumHiddenLayers = 2,
        NumAttentionHeads = 4,
        NumKeyValueHeads = 2,
        HeadDim = 16,
        RopeTheta = 1e6,
        TieWordEmbeddings = true,
        MaxWindowLayers = 2,
        BosTokenId = 2021,
        EosTokenIds = [2021],
        PadTokenId = 2021,
    };

    /// <summary>Width 48, a multiple of no block.</summary>
    public static Qwen2Config Odd { get; } = Small with { HiddenSize = 48, IntermediateSize = 80, HeadDim = 12 };

    /// <summary>Writes a folder with BF16 weights drawn from <paramref name="seed"/>, and returns its path.</summary>
    public static string Write(string folder, Qwen2Config config, int seed = 1, long maxShardBytes = long.MaxValue, Action<string, float[]>? edit = null)
    {
        Directory.CreateDirectory(folder);
        OutputTensor[] tensors = [.. TensorCatalogue.For(config).Tensors.Select(tensor => new OutputTensor(tensor.Name, PlainTypes.BF16, tensor.Shape))];
        SafetensorsPlan plan = SafetensorsPlan.Create(tensors, new Dictionary<string, string> { ["format"] = "pt" }, maxShardBytes);
        Random random = new(seed);
        foreach (PlannedFile planned in plan.Files)
        {
            using IWriteFile file = DiskFileLayer.Instance.Create(Path.Combine(folder, planned.Name), planned.ByteLength);
            file.Write(0, planned.Header);
            foreach (PlannedTensor tensor in planned.Tensors)
            {
                float[] values = new float[tensor.Tensor.Shape.ValueCount];
                bool isNorm = tensor.Tensor.Name.Contains("norm", StringComparison.Ordinal);
                for (int i = 0; i < values.Length; i++) values[i] = (isNorm ? 1 : 0) + (float)((random.NextDouble() - 0.5) * 0.2);
                edit?.Invoke(tensor.Tensor.Name, values);
                byte[] bytes = new byte[tensor.Tensor.ByteLength];
                PlainTypes.BF16.EncodeRow(values, default, Effort.Reference, bytes);
                file.Write(tensor.ByteOffset, bytes);
            }
        }

        if (plan.Index is not null) File.WriteAllBytes(Path.Combine(folder, SafetensorsPlan.IndexFileName), plan.Index);
        WriteCompanions(folder, config);
        return folder;
    }

    /// <summary>Writes a folder whose BF16 weights are a hole in a file, so that the largest shapes take no room, and returns its path.</summary>
    public static string WriteHoles(string folder, Qwen2Config config)
    {
        Directory.CreateDirectory(folder);
        OutputTensor[] tensors = [.. TensorCatalogue.For(config).Tensors.Select(tensor => new OutputTensor(tensor.Name, PlainTypes.BF16, tensor.Shape))];
        PlannedFile planned = SafetensorsPlan.Create(tensors, new Dictionary<string, string> { ["format"] = "pt" }, long.MaxValue).Files.Single();
        using (FileStream file = File.Create(Path.Combine(folder, planned.Name)))
        {
            file.Write(planned.Header);
            file.SetLength(planned.ByteLength);
        }

        WriteCompanions(folder, config);
        return folder;
    }

    private static void WriteCompanions(string folder, Qwen2Config config)
    {
        File.WriteAllBytes(Path.Combine(folder, "config.json"), config.ToJson());
        foreach (string name in new[] { "tokenizer.json", "tokenizer_config.json", "generation_config.json" })
        {
            File.WriteAllBytes(Path.Combine(folder, name), BuiltInModels.Instance.ReadAllBytes($"builtin:tiny/{name}", long.MaxValue));
        }
    }
}
