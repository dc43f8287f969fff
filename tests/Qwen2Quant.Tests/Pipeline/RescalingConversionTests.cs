using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Pipeline.Solving;
using Qwen2Quant.Quantization;
using Qwen2Quant.Tests.Support;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Scales of channels in whole models.</summary>
public sealed class RescalingConversionTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public static TheoryData<string> Models => ["dense", "many value heads", "mixture"];

    public void Dispose() => _folder.Dispose();

    /// <summary>Any scales in any fold leave the logits as they are, up to single precision.</summary>
    [Theory]
    [MemberData(nameof(Models))]
    public void FoldedScalesKeepTheFunction(string model)
    {
        string path = TestCheckpoint.Write(_folder.File("source"), Config(model));
        RunContext context = new();
        using Checkpoint source = Checkpoint.Open(path, context);
        ConversionPlan plan = FolderPlanner.PlanConversion(source, PlainTypes.F32, "", _folder.File("out"), long.MaxValue, context);
        SolvingJob job = new(null, null, new CalibrationOptions(), new GptqOptions(), Method: SolvingMethod.Find("awq"));
        LayerRescaling rescaling = new(source.Tensors.Catalogue, source.Tensors, plan, job, Effort.Fast, new WorkerTeam(2), new StageTimes());
        Random random = new(17);
        int folds = 0;
        for (int layer = 0; layer < source.Config.NumHiddenLayers; layer++)
        {
            FoldedScales[] scales = [.. ScaleFold.Of(source.Tensors.Catalogue, layer, normsOnly: false).Select(fold => new FoldedScales(
                fold.Name, [.. Enumerable.Range(0, ScaleCount(source, fold)).Select(_ => (float)Math.Exp(2 * (random.NextDouble() - 0.5)))], 0.5, false, 0, 0))];
            folds += scales.Length;
            rescaling.Apply(layer, scales, [], null);
        }

        Assert.Equal(model == "mixture" ? 2 * (3 + source.Config.NumExperts + 1) : 8, folds);
        int[] tokens = [.. Enumerable.Range(0, 48).Select(_ => random.Next(source.Config.VocabSize))];
        float[] expected = Logits(source.Config, source.Tensors, tokens), actual = Logits(source.Config, rescaling.Tensors, tokens);
        float largest = expected.Max(MathF.Abs);
        for (int i = 0; i < expected.Length; i++) Assert.Equal(expected[i], actual[i], 1e-4f * largest);
        Assert.NotEqual(expected, actual);
    }

    [Theory]
    [InlineData("dense", "awq")]
    [InlineData("dense", "awq+gptq")]
    [InlineData("dense", "smoothquant+gptq")]
    [InlineData("mixture", "awq")]
    [InlineData("mixture", "awq+gptq")]
    [InlineData("mixture", "smoothquant")]
    public void EveryMethodGivesTheSameBytesWhateverTheThreads(string model, string method)
    {
        string source = TestCheckpoint.Write(_folder.File("source"), Config(model), edit: LoudChannels);
        ConversionReport one = Run(source, method, "one.gguf", new RunContext { Threads = 1 }), many = Run(source, method, "many.gguf", new RunContext { Threads = 3 });
        Assert.Equal(File.ReadAllBytes(_folder.File("one.gguf")), File.ReadAllBytes(_folder.File("many.gguf")));
        Assert.Equal(method, one.Tensors.First(tensor => tensor.Name.Contains("attn_q.weight", StringComparison.Ordinal)).Solver);
        Assert.Equal("rescaled", one.Tensors.First(tensor => tensor.Name.Contains("attn_norm", StringComparison.Ordinal)).Solver);
        Assert.Equal(method, many.Method);
        RescalingReport rescaling = one.Rescaling!;
        // GGUF keeps norms and biases in single precision.
        Assert.Equal(0, rescaling.CastError);
        Assert.Contains(rescaling.Folds, fold => fold.Producer == "model.layers.1.post_attention_layernorm");
        Assert.All(rescaling.Folds, fold => Assert.True(fold.Least > 0 && fold.Greatest >= fold.Least && fold.Loss is null or <= 1));
        Assert.Equal(!method.StartsWith("awq", StringComparison.Ordinal), rescaling.Folds.All(fold => fold.Loss is null));
        Assert.Contains(rescaling.Folds, fold => fold.Greatest > 1.5 * fold.Least);
    }

    [Fact]
    public void TheParallelScheduleFindsScalesToo()
    {
        string source = TestCheckpoint.Write(_folder.File("source"), Config("dense"), edit: LoudChannels);
        RunContext context = new();
        using (Checkpoint opened = Checkpoint.Open(source, context)) new GramCalibration(_folder.File("gram.st"), []).Run(opened, Text(context), Windows, context);
        foreach (string method in new[] { "awq", "awq+gptq" })
        {
            ConversionReport report = Run(source, method, method + ".gguf", context, _folder.File("gram.st"));
            Assert.Equal(8, report.Rescaling!.Folds.Count);
            Assert.All(report.Rescaling.Folds, fold => Assert.InRange(fold.Loss!.Value, 0, 1));
        }
    }

    private static CalibrationOptions Windows => new() { Samples = 2, Context = 128 };

    private static EvaluationText Text(RunContext context) => EvaluationText.Load(context.Files, "builtin:calibration", Stream.Null);

    /// <summary>Norm weights that make a few channels ten times as large.</summary>
    private static void LoudChannels(string name, float[] values)
    {
        if (!name.Contains("layernorm", StringComparison.Ordinal)) return;
        for (int i = 3; i < values.Length; i += 16) values[i] *= 10;
    }

    private static Qwen2Config Config(string model) => model switch
    {
        "dense" => TestCheckpoint.Small,
        "many value heads" => TestCheckpoint.Small with { NumKeyValueHeads = 4 },
        _ => TestCheckpoint.Small with { IsMoe = true, MoeIntermediateSize = 32, SharedExpertIntermediateSize = 64, NumExperts = 4, NumExpertsPerTok = 2, TieWordEmbeddings = false },
    };

    private static int ScaleCount(Checkpoint source, ScaleFold fold) => fold.Channels.Length > 0 ? fold.Channels.Max() + 1 : (int)fold.Consumers[0].Shape.RowLength;

    private static float[] Logits(Qwen2Config config, ITensorSource tensors, int[] tokens)
    {
        Qwen2Model model = Qwen2Model.Load(config, tensors, new ForwardOptions { Threads = 2, ResidentBytes = long.MaxValue, Exact = true });
        float[] hidden = new float[tokens.Length * config.HiddenSize], logits = new float[tokens.Length * config.VocabSize];
        model.Forward(tokens, model.NewCache(tokens.Length), hidden);
        model.Logits(hidden, tokens.Length, logits);
        return logits;
    }

    private ConversionReport Run(string source, string method, string output, RunContext context, string? statistics = null)
    {
        using Checkpoint opened = Checkpoint.Open(source, context);
        ConversionPlan plan = GgufPlanner.PlanQuantization(opened, RecipeBook.BuiltIn.Find("Q4_0")!, new QuantizationOptions { IsSolved = true }, _folder.File(output), context);
        SolvingJob job = new(statistics is null ? Text(context) : null, statistics, Windows, new GptqOptions(), AllExperts: true, Method: SolvingMethod.Find(method));
        return new Conversion(opened, plan, new ConversionOptions("gguf:Q4_0", Effort: Effort.Fast, Solving: job), context).Run();
    }
}
