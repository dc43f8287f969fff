using System.CommandLine;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Pipeline.Benchmarking;

namespace Qwen2Quant.Cli.Verbs;

internal static class BenchVerb
{
    public static Command Create(VerbRunner run)
    {
        string[] groups = [.. Enum.GetValues<BenchmarkGroup>().Select(Name)];
        Option<string?> only = new("--only") { Description = "Measure one group; all by default", HelpName = string.Join('|', groups) };
        only.AcceptOnlyFromAmong(groups);
        Option<string> folder = new("--out", "-o") { Description = "Folder whose disk is measured", HelpName = "FOLDER", DefaultValueFactory = _ => "." };
        Verb verb = new(
            "bench",
            "Names the kernels in use and measures them and the machine: matrix product, memory, disk, codecs, attention, forward pass, GPTQ.",
            "bench",
            "bench --only kernels",
            "bench --only codecs --json");
        verb.Options.Add(only);
        verb.Options.Add(folder);
        verb.SetAction(parsed => run(parsed, session =>
        {
            string? wanted = session.Parsed.GetValue(only);
            BenchmarkOptions options = new() { Folder = session.Get(folder) };
            if (wanted == Name(BenchmarkGroup.Attention)) options = options with { LongestText = 32768 };
            List<BenchmarkFigure> figures = [];
            foreach (BenchmarkGroup group in Enum.GetValues<BenchmarkGroup>().Where(group => wanted is null || Name(group) == wanted))
            {
                figures.AddRange(MachineBenchmark.Run(group, options, session.Context));
            }

            bool withKernels = wanted is null || wanted == Name(BenchmarkGroup.Kernels);
            BenchResult result = new(Name(Simd.Level), session.Context.Threads, withKernels ? MachineBenchmark.Kernels() : null, figures);
            session.Print(result, CliJson.Default.BenchResult, output => Write(output, result));
            return ExitCodes.Done;
        }));
        return verb;
    }

    private static string Name<T>(T value) where T : struct, Enum => value.ToString().ToLowerInvariant();

    private static void Write(TextWriter output, BenchResult result)
    {
        output.WriteLine($"vectors: {result.Simd}, threads: {result.Threads}");
        foreach (string kernel in result.Kernels ?? []) output.WriteLine("  " + kernel);
        foreach (IGrouping<string, BenchmarkFigure> group in result.Figures.GroupBy(figure => figure.Group, StringComparer.Ordinal))
        {
            output.WriteLine(group.Key + ":");
            foreach (BenchmarkFigure figure in group)
            {
                string ceilings = figure is { MemoryShare: { } memory, OperationsPerValue: { } operations }
                    ? $"{Format.Number(100 * memory, "0.0"),8} % of copying{Format.Number(operations, "0"),10} FLOP of the matrix product a value"
                    : "";
                output.WriteLine($"  {figure.Name,-26}{Format.Number(figure.Value, figure.Value < 100 ? "0.00" : "0"),10} {figure.Unit}{ceilings}");
            }
        }
    }
}
