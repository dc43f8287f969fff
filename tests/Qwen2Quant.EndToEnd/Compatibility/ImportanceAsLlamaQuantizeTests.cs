using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.EndToEnd.Support;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.Compatibility;

/// <summary>An importance matrix made here gives the same tensors through llama.cpp's quantizer as through ours.</summary>
public sealed class ImportanceAsLlamaQuantizeTests : IDisposable
{
    private static readonly string[] Types = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q6_K"];

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [LlamaFact]
    public void Dense() => TensorsAgree(Models.Tiny, "--process-output");

    [LlamaFact]
    public void DenseFromTheOlderFormat() => TensorsAgree(Models.Tiny, "--format", "dat");

    [LlamaFact(Shared = true)]
    public void Experts() => TensorsAgree(SharedData.Path("models/tiny-qwen2moe"), "--process-output");

    /// <summary>With every byte of data, final padding included.</summary>
    [LlamaFact]
    public void GgmlReadsTheFile()
    {
        string path = _folder.File("im.gguf");
        CliCommand.Succeed("calibrate", Models.Tiny, "--data", "builtin:calibration", "--samples", "2", "--context", "64", "--out", path);
        Imatrix expected = ImatrixReader.Read(DiskFileLayer.Instance, path, new ReadOptions());
        using GgmlFile file = new(path);
        Assert.Equal(2 * expected.Entries.Count, file.TensorCount);
        Assert.Equal((2u, 64u, (nuint)1), (file.UInt32("imatrix.chunk_count"), file.UInt32("imatrix.chunk_size"), file.ArrayLength("imatrix.datasets")));
        foreach ((string name, float[] sums, _) in expected.Entries)
        {
            Assert.Equal(sums, file.Values($"{name}.in_sum2")!);
            Assert.Equal([128f], file.Values($"{name}.counts")!);
        }
    }

    private void TensorsAgree(string model, params string[] calibrate)
    {
        string plain = _folder.File("plain.gguf"), imatrix = _folder.File("statistics"), theirPath = _folder.File("theirs.gguf"), ourPath = _folder.File("ours.gguf");
        CliCommand.Succeed("convert", model, "--to", "gguf", "--type", "bf16", "--out", plain);
        CliCommand.Succeed(["calibrate", plain, "--data", "builtin:calibration", "--samples", "4", "--context", "128", "--out", imatrix, .. calibrate]);
        Dictionary<string, float[]> weights = ImatrixReader.Read(DiskFileLayer.Instance, imatrix, new ReadOptions()).MeanSquares();
        foreach (string type in Types)
        {
            LlamaQuantizer.Quantize(plain, theirPath, type, new LlamaQuantizeOptions { ThreadCount = 1, Imatrix = weights });
            CliCommand.Succeed("quantize", plain, "--to", $"gguf:{type}", "--effort", "reference", "--imatrix", imatrix, "--out", ourPath, "--force");
            using GgufFile theirs = Models.OpenGguf(theirPath), ours = Models.OpenGguf(ourPath);
            Assert.Equal(theirs.Tensors.Select(Describe), ours.Tensors.Select(Describe));
            foreach (TensorEntry tensor in theirs.Tensors)
            {
                Assert.True(Models.Bytes(theirs, tensor).AsSpan().SequenceEqual(Models.Bytes(ours, ours.Find(tensor.Name)!)), $"{type}: the bytes of {tensor.Name} differ");
            }
        }
    }

    private static string Describe(TensorEntry entry) => $"{entry.Name} {entry.Type.Name} {entry.Shape}";
}
