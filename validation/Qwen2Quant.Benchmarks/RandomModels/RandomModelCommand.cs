using System.Diagnostics;
using System.Globalization;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Benchmarks.RandomModels;

/// <summary>Writes a checkpoint of random weights with the names, shapes and files of a published one.</summary>
public static class RandomModelCommand
{
    private static readonly string[] TokenizerFiles =
        [.. TokenizerFolder.FileNames, "generation_config.json"];

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
        long shardBytes = arguments.Number("--shard-size", format == "gguf" ? long.MaxValue : SafetensorsPlan.DefaultShardBytes, 1L);
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
        File.WriteAllBytes(Path.Combine(folder, "config.json"), shape.ToConfig().ToJson());
        if (index is not null) File.WriteAllBytes(Path.Combine(folder, "model.safetensors.index.json"), index);
        if (tokenizer is null) return files;
        string[] present = [.. TokenizerFiles.Where(name => File.Exists(Path.Combine(tokenizer, name)))];
        if (present.Length == 0) throw new IOException($"'{tokenizer}' holds no tokenizer");
        foreach (string name in present) File.Copy(Path.Combine(tokenizer, name), Path.Combine(folder, name));
        return files;
    }
}
