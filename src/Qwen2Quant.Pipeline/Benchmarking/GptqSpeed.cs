using System.Diagnostics;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Benchmarking;

/// <summary>
/// GPTQ of the two shapes of a 0.5B model's MLP on Q4_0 blocks, which divide both widths, stage by stage, once: seconds, and the operations that the machine's matrix product
/// does in that time.
/// </summary>
internal static class GptqSpeed
{
    private const int Narrow = 896, Wide = 4864, Tokens = 2 * GramMatrix.FoldRows;

    public static IReadOnlyList<BenchmarkFigure> Run(BenchmarkOptions options, RunContext context)
    {
        double ceiling = Ceilings.MatrixProduct(context.Threads, options, context).Value;
        List<BenchmarkFigure> figures = [];
        foreach ((int rowCount, int width) in new[] { (Wide, Narrow), (Narrow, Wide) })
        {
            context.Cancellation.ThrowIfCancellationRequested();
            Measure(rowCount, width, ceiling, context, figures);
        }

        return figures;
    }

    private static void Measure(int rowCount, int width, double ceiling, RunContext context, List<BenchmarkFigure> figures)
    {
        WorkerTeam team = new(context.Threads);
        ElementType type = GgmlTypes.All.Select(ggml => ggml.Element).First(element => element.Name == "Q4_0");
        Random random = new(1);
        float[] activations = new float[Tokens * width], weights = new float[rowCount * width];
        for (int i = 0; i < activations.Length; i++) activations[i] = (float)(random.NextDouble() - 0.5 + (i % width == 0 ? 0 : activations[i - 1] * 0.7));
        for (int i = 0; i < weights.Length; i++) weights[i] = (float)((random.NextDouble() - 0.5) * 0.05);
        GramMatrix gram = new(width);
        Add($"gram-{Tokens}-tokens", () => gram.Add(activations, Tokens, team));
        byte[] encoded = new byte[type.ByteCount(weights.Length)];
        foreach (int passes in new[] { 0, 3 })
        {
            GptqHessian? hessian = null;
            GptqOptions gptq = new() { DescentPasses = passes };
            if (passes == 0) Add("factor", () => hessian = new GptqHessian("bench", gram, 1, gptq, team));
            else hessian = new GptqHessian("bench", gram, 1, gptq, team);
            Add($"solve-{passes}-passes", () => new GptqSolver(hessian!).Solve(new RowSlab("bench", 0, width, weights), type, Effort.Fast, encoded, team));
        }

        void Add(string stage, Action action)
        {
            long start = Stopwatch.GetTimestamp();
            action();
            double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
            string name = $"{rowCount}x{width}.{stage}.threads-{context.Threads}";
            figures.Add(new("gptq", $"{name}.time", seconds * 1e3, "ms"));
            figures.Add(new("gptq", name, seconds * ceiling, "GFLOP at the F32 ceiling"));
        }
    }
}
