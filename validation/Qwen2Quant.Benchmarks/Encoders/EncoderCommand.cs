using System.Diagnostics;
using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Benchmarks.Encoders;

/// <summary>
/// Block encoders against ggml's own <c>ggml_quantize_chunk</c>, on one thread: the sum of importance x squared error as a ratio (ours / theirs) and the speed
/// as a ratio (theirs / ours in seconds), for each type, effort and kind of row, or summed up in a table.
/// </summary>
public static class EncoderCommand
{
    public static void Run(CommandArguments arguments)
    {
        string[] types = arguments.Text("--types")?.Split(',') ?? [.. GgmlTypes.All.Where(type => type.Element is { CanEncode: true, IsQuantized: true }).Select(type => type.Name)];
        Effort[] efforts = arguments.Text("--efforts")?.Split(',').Select(name => Enum.Parse<Effort>(name, true)).ToArray() ?? [Effort.Fast, Effort.Normal, Effort.High];
        string[] models = arguments.Text("--models")?.Split(',') ?? [];
        string[]? rows = arguments.Text("--rows")?.Split(',');
        string? imatrix = arguments.Text("--imatrix");
        string? table = arguments.Text("--table");
        bool isTimed = arguments.Flag("--time");
        arguments.Finish(0);
        if (imatrix is not null && models.Length != 1) throw new UsageException("--imatrix belongs to one model: --models FILE.gguf");
        if (InteropPackages.LlamaLibraries is null) throw new InvalidOperationException("llama.cpp is not installed: npm ci --ignore-scripts in tests/Qwen2Quant.EndToEnd/interop");
        Dictionary<string, float[]> meanSquares = imatrix is null ? [] : ImatrixReader.Read(DiskFileLayer.Instance, imatrix, new ReadOptions()).MeanSquares();
        List<SampleRows> samples = [.. SampleRows.Random(), .. models.SelectMany(model => SampleRows.Of(model, meanSquares))];
        if (rows is not null) samples = [.. samples.Where(sample => rows.Contains(sample.Name))];
        EncoderTable sums = new(efforts);
        Console.WriteLine("type      weights     rows                  " + string.Concat(efforts.Select(effort => $"{effort,10}{(isTimed ? "   faster" : "")}")) + (isTimed ? "   ggml Mvalues/s" : ""));
        foreach (string name in types)
        {
            GgmlType type = GgmlTypes.Find(name) ?? throw new UsageException($"there is no type {name}");
            foreach (bool hasImportance in new[] { false, true })
            {
                if (!hasImportance && Ggml.RequiresImatrix((int)type.Id)) continue;
                foreach (SampleRows sample in samples.Where(sample => sample.RowLength % type.Element.ValuesPerBlock == 0))
                {
                    // Random rows alone are timed: a short matrix shows the clock.
                    Print(sums.Add(Compare(type, sample, hasImportance, efforts, isTimed && sample.IsRandom)));
                }
            }
        }

        if (table is not null) File.WriteAllText(table, sums.ToMarkdown());
    }

    private static EncoderComparison Compare(GgmlType type, SampleRows sample, bool hasImportance, Effort[] efforts, bool isTimed)
    {
        float[] importance = hasImportance ? sample.Importance : [];
        int rowCount = sample.Values.Length / sample.RowLength;
        byte[] theirs = Ggml.Quantize((int)type.Id, sample.Values, rowCount, sample.RowLength, importance);
        float[] ownWeights = GgmlWeights.Of(type.Name, sample, importance);
        double theirError = sample.WeightedError(type.Element, theirs, importance), theirOwnError = sample.WeightedError(type.Element, theirs, ownWeights);
        double theirSeconds = isTimed ? Best(() => Ggml.Quantize((int)type.Id, sample.Values, rowCount, sample.RowLength, importance)) : 0;
        byte[] ours = new byte[theirs.Length];
        List<EffortFigures> figures = [];
        foreach (Effort effort in efforts)
        {
            Encode(type.Element, sample, importance, effort, ours);
            figures.Add(new EffortFigures(
                Ratio(sample.WeightedError(type.Element, ours, importance), theirError),
                Ratio(sample.WeightedError(type.Element, ours, ownWeights), theirOwnError),
                isTimed ? theirSeconds / Best(() => Encode(type.Element, sample, importance, effort, ours)) : null));
        }

        return new EncoderComparison(type.Name, hasImportance, sample.Name, figures, isTimed ? sample.Values.Length / theirSeconds / 1e6 : null);
    }

    private static double Ratio(double ours, double theirs) => theirs == 0 ? 1 : ours / theirs;

    private static void Print(EncoderComparison comparison)
    {
        string line = $"{comparison.Type,-9} {(comparison.HasImportance ? "importance" : "none"),-11} {comparison.Rows,-21} ";
        foreach (EffortFigures figures in comparison.Efforts)
        {
            line += string.Create(CultureInfo.InvariantCulture, $"{figures.ErrorRatio,10:f5}");
            if (figures.SpeedRatio is { } speed) line += string.Create(CultureInfo.InvariantCulture, $"{speed,8:f2}x");
        }

        if (comparison.GgmlMegaValuesPerSecond is { } theirs) line += string.Create(CultureInfo.InvariantCulture, $"{theirs,10:f2}");
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
