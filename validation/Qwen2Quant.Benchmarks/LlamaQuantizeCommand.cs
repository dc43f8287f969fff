using System.Diagnostics;
using System.Globalization;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Benchmarks;

/// <summary>Times <c>llama_model_quantize</c> until its output is on the disk, as our own command is timed.</summary>
public static class LlamaQuantizeCommand
{
    public static void Run(CommandArguments arguments)
    {
        string? imatrix = arguments.Text("--imatrix");
        LlamaQuantizeOptions options = new()
        {
            ThreadCount = arguments.Number("--threads", Environment.ProcessorCount, 1),
            Pure = arguments.Flag("--pure"),
            AllowRequantize = arguments.Flag("--allow-requantize"),
            Imatrix = imatrix is null ? [] : ImatrixReader.Read(DiskFileLayer.Instance, imatrix, new ReadOptions()).MeanSquares(),
        };
        string[] paths = arguments.Finish(3);
        string fileType = paths[2];
        if (!LlamaFileTypes.All.ContainsKey(fileType)) throw new UsageException($"llama-quantize has no type '{fileType}': {string.Join(", ", LlamaFileTypes.All.Keys)}");
        if (InteropPackages.LlamaLibraries is null) throw new InvalidOperationException("llama.cpp is not installed: npm ci --ignore-scripts in tests/Qwen2Quant.EndToEnd/interop");

        double call = LlamaQuantizer.Quantize(paths[0], paths[1], fileType, options).TotalSeconds;
        long start = Stopwatch.GetTimestamp();
        using (FileStream output = new(paths[1], FileMode.Open, FileAccess.ReadWrite)) output.Flush(flushToDisk: true);
        double flush = Stopwatch.GetElapsedTime(start).TotalSeconds;
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{{\"seconds\": {call + flush:F3}, \"call_seconds\": {call:F3}, \"flush_seconds\": {flush:F3}, \"bytes\": {new FileInfo(paths[1]).Length}, \"threads\": {options.ThreadCount}}}"));
    }
}
