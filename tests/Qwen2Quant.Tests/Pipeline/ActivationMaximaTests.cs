using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>The largest activations are found where they are, and those that half precision cannot hold are said.</summary>
public sealed class ActivationMaximaTests : IDisposable
{
    private static readonly EvaluationText Text = EvaluationText.Load(DiskFileLayer.Instance, "builtin:text", Stream.Null);

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void TheFirstOfTheLargestIsFound(int threads)
    {
        const int width = 1100, rowCount = 130;
        LinearInput down = new(LinearInputKind.FeedForwardDown, 3), expert = new(LinearInputKind.ExpertDown, 3, 7);
        Random random = new(1);
        float[] rows = [.. Enumerable.Range(0, width * rowCount).Select(_ => random.NextSingle() - 0.5f)];
        rows[(128 * width) + 5] = -9;
        rows[(129 * width) + 6] = 9;
        ActivationMaxima maxima = new(threads);
        maxima.Observe(down, new float[width], 1);
        maxima.Observe(down, rows, rowCount);
        maxima.Observe(down, rows, rowCount);
        maxima.Observe(expert, rows.AsSpan(0, width), 1);
        maxima.Observe(LinearInput.Output, [1f, -2f], 1);

        WindowPlan windows = WindowPlan.Create(new int[2600], new WindowOptions { Context = 100, Chunks = 13, Sampling = WindowSampling.Spread }, "text");
        EventLog events = new();
        IReadOnlyList<ActivationMaximum> report = maxima.Report(windows, events);
        Assert.Equal(["model.layers.3.mlp.down_proj", "model.layers.3.mlp.experts.7.down_proj", "lm_head"], report.Select(maximum => maximum.Name));
        // Row 129 of those run, in the second of the windows taken, which is the third of the text.
        Assert.Equal(new ActivationMaximum("mlp.down_proj", 3, null, 9, 5, 2, 29), report[0]);
        Assert.Equal(("mlp.experts.down_proj", 3, 7, null, null), (report[1].Input, report[1].Layer, report[1].Expert, report[1].Window, report[1].Position));
        Assert.Equal(new ActivationMaximum("lm_head", null, null, 2, 1, 0, 0), report[2]);
        Assert.Empty(events.Events);
    }

    /// <summary>Every input of every layer is reported, with what a plain observer finds.</summary>
    [Fact]
    public void APerplexityReportsWhatAPlainObserverSees()
    {
        WindowOptions options = new() { Context = 64, Chunks = 3 };
        RunContext context = new();
        using Checkpoint checkpoint = Checkpoint.Open("builtin:tiny", context);
        PerplexityResult without = Proof.Perplexity(checkpoint, Text, options, context), with = Proof.Perplexity(checkpoint, Text, options, context, withActivations: true);
        Assert.Null(without.Activations);
        Assert.Equal(without.Perplexity, with.Perplexity);

        Plain plain = new();
        LoadedModel model = new(checkpoint, context) { Observer = plain };
        int[] tokens = model.Tokenizer.Encode(Text.Text, parseSpecial: false);
        for (int window = 0; window < 3; window++) model.Forward(tokens.AsSpan(64 * window, 64), new float[64 * model.HiddenSize]);
        Assert.Equal((4 * checkpoint.Config.NumHiddenLayers) + 1, with.Activations!.Count);
        Assert.Equal([.. plain.Largest.Values.Order()], [.. with.Activations.Select(maximum => maximum.MaxAbs).Order()]);

        ComparisonResult compared = Proof.Compare(checkpoint, checkpoint, Text, options, context, withActivations: true);
        Assert.Equal(with.Activations, compared.Activations!.Base);
        Assert.Equal(with.Activations, compared.Activations.Candidate);
        Assert.Empty(context.Events.Events);
    }

    /// <summary>up grows and down shrinks by powers of two: the function stays, and the input of down passes the limits of half precision.</summary>
    [Fact]
    public void OverflowOfHalfPrecisionIsAWarning()
    {
        float plain = Largest(1, out EventLog none);
        Assert.Empty(none.Events);
        int exponent = (int)Math.Floor(Math.Log2(65504 / plain));
        Largest((float)Math.ScaleB(1, exponent), out EventLog near);
        QuantEvent warning = Assert.Single(near.Events);
        Assert.Equal(("activation-near-overflow", "model.layers.1.mlp.down_proj.weight", true, false), (warning.Code, warning.Tensor, warning.IsWarning, warning.IsSubstitution));
        Assert.InRange(Largest((float)Math.ScaleB(1, exponent + 1), out EventLog over), 65504.01f, 131072);
        warning = Assert.Single(over.Events);
        Assert.Equal(("activation-overflow", true), (warning.Code, warning.IsWarning));
        Assert.Contains("BF16", warning.Message, StringComparison.Ordinal);
    }

    private float Largest(float factor, out EventLog events)
    {
        string path = TestCheckpoint.Write(_folder.File($"model-{factor}"), TestCheckpoint.Small, edit: (name, values) =>
        {
            float scale = name == "model.layers.1.mlp.up_proj.weight" ? factor : name == "model.layers.1.mlp.down_proj.weight" ? 1 / factor : 1;
            for (int i = 0; i < values.Length; i++) values[i] *= scale;
        });
        RunContext context = new();
        using Checkpoint checkpoint = Checkpoint.Open(path, context);
        (_, PerplexityResult result) = DiagonalCalibration.Collect(checkpoint, Text, new CalibrationOptions { Samples = 2, Context = 64 }, context);
        events = context.Events;
        return result.Activations!.Single(maximum => maximum is { Layer: 1, Input: "mlp.down_proj" }).MaxAbs;
    }

    private sealed class Plain : IActivationObserver
    {
        public Dictionary<LinearInput, float> Largest { get; } = [];

        public void Observe(LinearInput input, ReadOnlySpan<float> rows, int rowCount)
        {
            foreach (float value in rows) Largest[input] = Math.Max(Largest.GetValueOrDefault(input), Math.Abs(value));
        }
    }
}
