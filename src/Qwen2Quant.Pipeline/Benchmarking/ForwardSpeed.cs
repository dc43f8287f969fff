using Qwen2Quant.Core.Running;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Benchmarking;

/// <summary>The forward pass with its losses, as <c>perplexity</c> runs it, on the embedded model and text.</summary>
internal static class ForwardSpeed
{
    private const string Model = "builtin:tiny";
    private const int Chunks = 8;

    public static BenchmarkFigure Run(BenchmarkOptions options, RunContext context)
    {
        RunContext quiet = context with { Progress = NoProgress.Instance };
        using Checkpoint checkpoint = Checkpoint.Open(Model, quiet);
        LoadedModel model = new(checkpoint, quiet);
        string text = Corpora.Read(Corpora.Text);
        WindowPlan windows = WindowPlan.Create(
            model.Tokenizer.Encode(text, parseSpecial: false), new WindowOptions { Chunks = Chunks, BeginToken = model.Tokenizer.LeadingId }, Corpora.Text);
        RunOptions run = new() { Threads = context.Threads };
        double seconds = BestOf.Seconds(5 * options.Budget, () => PerplexityRun.Run(model, windows, run, context.Cancellation), context.Cancellation);
        return new("forward", $"{Model}.threads-{context.Threads}", (double)windows.WindowCount * windows.Context / seconds, "tokens/s");
    }
}
