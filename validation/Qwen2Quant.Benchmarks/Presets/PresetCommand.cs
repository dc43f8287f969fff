using System.Diagnostics;
using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Running;
using Qwen2Quant.EndToEnd.LlamaCpp;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Benchmarks.Presets;

/// <summary>
/// Every preset made by llama.cpp's own quantizer and by this program from the same BF16 file, without and with an importance matrix: bytes, and mean KL
/// divergence from the source over held-out prose by the same forward pass. Rows appear as they are measured.
/// </summary>
public static class PresetCommand
{
    private const int CalibrationSamples = 64;

    public static void Run(CommandArguments arguments)
    {
        string[] presets = arguments.Text("--presets")?.Split(',') ?? [.. LlamaFileTypes.All.Keys.Where(name => name is not ("F32" or "F16" or "BF16"))];
        Effort effort = Enum.Parse<Effort>(arguments.Text("--effort") ?? "normal", ignoreCase: true);
        int windows = arguments.Number("--chunks", 8, 1);
        string? imatrixPath = arguments.Text("--imatrix");
        bool withoutImatrix = !arguments.Flag("--imatrix-only"), withImatrix = !arguments.Flag("--no-imatrix");
        string path = arguments.Finish(1)[0];
        if (InteropPackages.LlamaLibraries is null) throw new InvalidOperationException("llama.cpp is not installed: npm ci --ignore-scripts in tests/Qwen2Quant.EndToEnd/interop");
        string folder = Directory.CreateTempSubdirectory("qwen2quant-presets").FullName;
        try
        {
            RunContext context = new();
            using Checkpoint source = Checkpoint.Open(path, context);
            MeasuredBase measured = new(source, windows, context);
            Imatrix? imatrix = !withImatrix ? null : imatrixPath is null ? Collect(source, context) : ImatrixReader.Read(context.Files, imatrixPath, new ReadOptions());
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{Path.GetFileName(path)}: perplexity {measured.Perplexity:f4} on {measured.ScoredTokens} positions, effort {effort.ToString().ToLowerInvariant()}\n"));
            Console.WriteLine("| preset | importance | bytes | llama.cpp: KL | perplexity | ours: KL | perplexity | ratio | seconds, theirs | ours |\n|---|---|---|---|---|---|---|---|---|---|");
            foreach (string preset in presets)
            {
                if (withoutImatrix) Measure(preset, null, null);
                if (imatrix is not null) Measure(preset, Importance.Create(imatrix, source.Tensors.Catalogue, imatrixPath, ImportanceFilter.All, strict: false, context), imatrix.MeanSquares());
            }

            void Measure(string preset, Importance? given, Dictionary<string, float[]>? theirs)
            {
                string theirPath = Path.Combine(folder, "theirs.gguf"), ourPath = Path.Combine(folder, "ours.gguf");
                RunContext quiet = new();
                ConversionPlan plan = GgufPlanner.PlanQuantization(source, RecipeBook.BuiltIn.Find(preset)!, new QuantizationOptions { Importance = given }, ourPath, quiet);
                if (plan.Obstacle is not null) return;
                double theirSeconds;
                try
                {
                    theirSeconds = LlamaQuantizer.Quantize(path, theirPath, preset, new LlamaQuantizeOptions { Imatrix = theirs ?? [] }).TotalSeconds;
                }
                catch (InvalidOperationException error)
                {
                    Console.WriteLine($"| {preset} | {(given is null ? "no" : "yes")} | llama.cpp: {error.Message.ReplaceLineEndings(" ")} |");
                    return;
                }

                ConversionResult own = Convert(source, plan, effort, quiet);
                List<double> theirDivergences = [], ourDivergences = [];
                ComparisonResult their = measured.Compare(theirPath, theirDivergences), our = measured.Compare(ourPath, ourDivergences);
                Console.WriteLine(string.Create(
                    CultureInfo.InvariantCulture,
                    $"| {preset} | {(given is null ? "no" : "yes")} | {own.Bytes} | {their.MeanKld:f5} | {their.Candidate.Perplexity:f3} | {our.MeanKld:f5} | {our.Candidate.Perplexity:f3} | {our.MeanKld / their.MeanKld:f3} ± {RatioStandardError(ourDivergences, theirDivergences):f3} | {theirSeconds:f2} | {own.Seconds:f2} |"));
                File.Delete(theirPath);
            }
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static Imatrix Collect(Checkpoint source, RunContext context) => DiagonalCalibration.Collect(
        source, EvaluationText.Load(context.Files, "builtin:calibration", Stream.Null), new CalibrationOptions { Samples = CalibrationSamples }, context).Imatrix;

    private sealed record ConversionResult(long Bytes, double Seconds);

    /// <summary>Of the quotient of two means over the same positions: that of the mean of <c>a - (quotient) b</c>, over the mean of b.</summary>
    private static double RatioStandardError(List<double> a, List<double> b)
    {
        double ratio = a.Average() / b.Average();
        double squares = a.Zip(b, (x, y) => Math.Pow(x - (ratio * y), 2)).Sum();
        return Math.Sqrt(squares / a.Count / (a.Count - 1)) / b.Average();
    }

    private static ConversionResult Convert(Checkpoint source, ConversionPlan plan, Effort effort, RunContext context)
    {
        long start = Stopwatch.GetTimestamp();
        new Conversion(source, plan, new ConversionOptions("gguf", Force: true, Effort: effort), context).Run();
        return new ConversionResult(plan.ByteLength, Stopwatch.GetElapsedTime(start).TotalSeconds);
    }
}
