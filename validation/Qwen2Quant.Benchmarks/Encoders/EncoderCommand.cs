using System.Diagnostics;
using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Benchmarks.Encoders;

/// <summary>
/// Block encoders against ggml's own <c>ggml_quantize_chunk</c>, on one thread: the sum of importance x squared error as a ratio (ours / theirs) and the speed
/// as a ratio (theirs / ours in seconds), for each type, effort and kind of row.
/// </summary>
public static class EncoderCommand
{
    public static void Run(CommandArguments arguments)
    {
        string[] types = arguments.Text("--types")?.Split(',') ?? [.. GgmlTypes.All.Where(type => type.Element is { CanEncode: true, IsQuantized: true }).Select(type => type.Name)];
        Effort[] efforts = arguments.Text("--efforts")?.Split(',').Select(name => Enum.Parse<Effort>(name, true)).ToArray() ?? [Effort.Fast, Effort.Normal, Effort.High];
        string? model = arguments.Text("--model");
        string[]? rows = arguments.Text("--rows")?.Split(',');
        bool isTimed = arguments.Flag("--time");
        arguments.Finish(0);
        if (InteropPackages.LlamaLibraries is null) throw new InvalidOperationException("llama.cpp is not installed: npm ci --ignore-scripts in tests/Qwen2Quant.EndToEnd/interop");
        List<SampleRows> samples = [.. SampleRows.Random(), .. model is null ? [] : SampleRows.Of(model)];
        if (rows is not null) samples = [.. samples.Where(sample => rows.Contains(sample.Name))];
        Console.WriteLine("type      weights     rows            " + string.Concat(efforts.Select(effort => $"{effort,10}{(isTimed ? "   faster" : "")}")) + (isTimed ? "   ggml Mvalues/s" : ""));
        foreach (string name in types)
        {
            GgmlType type = GgmlTypes.Find(name) ?? throw new UsageException($"there is no type {name}");
            foreach (bool hasImportance in new[] { false, true })
            {
                if (!hasImportance && Ggml.RequiresImatrix((int)type.Id)) continue;
                foreach (SampleRows sample in samples.Where(sample => sample.RowLength % type.Element.ValuesPerBlock == 0)) Compare(type, sample, hasImportance, efforts, isTimed);
            }
        }
    }

    private static void Compare(GgmlType type, SampleRows sample, bool hasImportance, Effort[] efforts, bool isTimed)
    {
        float[] importance = hasImportance ? sample.Importance : [];
        int rowCount = sample.Values.Length / sample.RowLength;
        byte[] theirs = Ggml.Quantize((int)type.Id, sample.Values, rowCount, sample.RowLength, importance);
        double theirError = sample.WeightedError(type.Element, theirs, importance);
        double theirSeconds = isTimed ? Best(() => Ggml.Quantize((int)type.Id, sample.Values, rowCount, sample.RowLength, importance)) : 0;
        string line = string.Create(CultureInfo.InvariantCulture, $"{type.Name,-9} {(hasImportance ? "importance" : "none"),-11} {sample.Name,-15} ");
        byte[] ours = new byte[theirs.Length];
        foreach (Effort effort in efforts)
        {
            Encode(type.Element, sample, importance, effort, ours);
            double ratio = theirError == 0 ? 1 : sample.WeightedError(type.Element, ours, importance) / theirError;
            line += string.Create(CultureInfo.InvariantCulture, $"{ratio,10:f5}");
            if (isTimed) line += string.Create(CultureInfo.InvariantCulture, $"{theirSeconds / Best(() => Encode(type.Element, sample, importance, effort, ours)),8:f2}x");
        }

        if (isTimed) line += string.Create(CultureInfo.InvariantCulture, $"{sample.Values.Length / theirSeconds / 1e6,10:f2}");
        Console.WriteLine(line);
    }

    private static void Encode(ElementType type, SampleRows sample, float[] importance, Effort effort, byte[] blocks)
    {
        int rowBytes = (int)type.ByteCount(sample.RowLength);
        for (int row = 0; row < sample.Values.Length / sample.RowLength; row++)
        {
            type.EncodeRow(sample.Values.AsSpan(row * sample.RowLength, sample.RowLength), importance, effort, blocks.AsSpan(row * rowBytes, rowBytes));
        }
    }

    private static double Best(Action action)
    {
        double best = double.MaxValue;
        long start = Stopwatch.GetTimestamp();
        for (int run = 0; run < 3 || Stopwatch.GetElapsedTime(start).TotalSeconds < 0.2; run++)
        {
            long from = Stopwatch.GetTimestamp();
            action();
            best = Math.Min(best, Stopwatch.GetElapsedTime(from).TotalSeconds);
        }

        return best;
    }
}
