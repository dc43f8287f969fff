using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>Chooses the codes of all matrices of a model's layers; where their statistics come from is the schedule's affair.</summary>
internal abstract class ModelSolving : IDisposable
{
    private readonly bool _strict;

    protected ModelSolving(Checkpoint source, ConversionPlan plan, SolvingJob job, Effort effort, bool strict, RunContext context)
    {
        (Source, Job, Effort, _strict, Context) = (source, job, effort, strict, context);
        Team = new WorkerTeam(context.Threads);
        ByLayer = Targets(source, plan).ToLookup(target => target.Input.Layer);
        Rescaling = new LayerRescaling(source.Tensors.Catalogue, source.Tensors, plan, job, effort, Team, Times);
    }

    /// <summary>The source with what was folded into it.</summary>
    public RewrittenTensors Rewritten => Rescaling.Tensors;

    protected LayerRescaling Rescaling { get; }

    protected bool Rescales => Job.Method.Rescaling != Solving.Rescaling.None;

    /// <summary>Bytes that the process takes, as planned.</summary>
    public abstract long PlannedBytes { get; }

    protected Checkpoint Source { get; }
    protected SolvingJob Job { get; }
    protected Effort Effort { get; }
    protected RunContext Context { get; }
    protected WorkerTeam Team { get; }
    protected StageTimes Times { get; } = new();
    protected ILookup<int, SolvedTarget> ByLayer { get; }

    /// <summary>The text behind the statistics, and how much of it.</summary>
    protected abstract (string Name, int Windows, int Context) Calibration { get; }

    /// <summary>What, beside options and types, decides which codes are chosen.</summary>
    protected abstract string CalibrationIdentity { get; }

    /// <summary>The schedule that a job asks for.</summary>
    /// <exception cref="QuantException">Statistics are another model's, the text is too short, or the memory given too small.</exception>
    public static ModelSolving Create(Checkpoint source, ConversionPlan plan, SolvingJob job, Effort effort, bool strict, RunContext context) =>
        job.StatisticsPath is null ? new SequentialSolving(source, plan, job, effort, strict, context) : new StatisticsSolving(source, plan, job, effort, strict, context);

    /// <summary>Matrices of layers whose planned type has a grid.</summary>
    public static IEnumerable<SolvedTarget> Targets(Checkpoint source, ConversionPlan plan)
    {
        foreach (PlanItem item in plan.Items.Where(item => !item.IsCopy && item.Target.Tensor.Type.IsQuantized))
        {
            ElementType type = item.Target.Tensor.Type;
            foreach (TensorEntry part in item.Parts)
            {
                CanonicalTensor tensor = source.Tensors.Catalogue.Find(part.Name)!;
                if (LinearInput.Of(tensor) is { Layer: >= 0 } input && GptqSolver.GranuleLength(type) > 0) yield return new SolvedTarget(tensor, input, part, type);
            }
        }
    }

    /// <summary>What was folded in; null for methods that do not.</summary>
    public RescalingReport? ReportRescaling() => !Rescales || Rescaling.Folds.Count == 0 ? null : new RescalingReport(
        Rescaling.CastError, [.. Rescaling.Folds.Select(fold => new FoldReport(fold.Name, fold.Ratio, fold.UsesWeights, fold.Scales.Min(), fold.Scales.Max(), fold.LossBefore == 0 ? null : fold.LossAfter / fold.LossBefore))]);

    /// <param name="writeSeconds">Null when nothing was done yet.</param>
    public GptqReport Report(double? writeSeconds) => new(
        Calibration.Name,
        Job.StatisticsPath is null ? "sequential" : "parallel",
        Calibration.Windows,
        Calibration.Context,
        (long)Calibration.Windows * Calibration.Context,
        Job.Options.Damping,
        Job.Options.Shrinkage,
        Job.Options.ActivationOrder,
        Job.Options.DescentPasses,
        Job.Options.RefitPasses,
        Job.Options.InputCorrection,
        Job.AllExperts,
        PlannedBytes,
        writeSeconds is { } write ? new GptqSeconds(Times[Stage.Forward], Times[Stage.Gram], Times[Stage.Rescale], Times[Stage.Factor], Times[Stage.Solve], write) : null);

    /// <param name="folder">Where whole layers are kept, and found when an earlier run solved them.</param>
    /// <param name="share">Only these layers; null for all.</param>
    /// <exception cref="QuantException">Statistics are not usable, activations overflow, the disk or the memory does not suffice. What whole layers gave stays for <c>--resume</c>.</exception>
    public SolvedTensors Run(string folder, Share? share)
    {
        SolvedTensors solved = new(Context.Files, folder);
        try
        {
            RunLayers(new LayerSolver(Rescaling.Tensors, Job, Effort, Team, Times, Context.Events), solved, share);
            return solved;
        }
        catch (Exception error)
        {
            solved.Dispose();
            if (error is QuantException { Path: null } known) throw known.In(Source.Location.Path);
            throw;
        }
    }

    protected abstract void RunLayers(LayerSolver solver, SolvedTensors solved, Share? share);

    /// <summary>Begins a layer; true when an earlier run solved it.</summary>
    protected static bool Begin(SolvedTensors solved, int layer, IReadOnlyList<SolvedTarget> targets) =>
        solved.Begin(layer, targets.ToDictionary(target => target.Tensor.Name, target => (target.Type, target.Source.Shape), StringComparer.Ordinal));

    /// <summary>Solves matrices, input by input.</summary>
    /// <param name="take">Gives the Gram matrix of an input, null when no token reached it.</param>
    /// <param name="errorOf">Gives what earlier matrices did to an input, null where that is not made up for.</param>
    /// <param name="layerTokens">Tokens that the layer saw.</param>
    /// <returns>The matrices, each once it is stored.</returns>
    protected IEnumerable<SolvedTarget> Solve(LayerSolver solver, SolvedTensors solved, IEnumerable<SolvedTarget> targets, Func<LinearInput, int, GramMatrix?> take, Func<LinearInput, InputError?> errorOf, long layerTokens)
    {
        double evenTokens = EvenTokens(layerTokens);
        List<string> starved = [];
        foreach (IGrouping<LinearInput, SolvedTarget> group in targets.GroupBy(target => target.Input))
        {
            Context.Cancellation.ThrowIfCancellationRequested();
            SolvedTarget[] sharing = [.. group];
            if (Array.TrueForAll(sharing, target => solved.Find(target.Tensor.Name) is not null))
            {
                // An earlier run solved them.
                foreach (SolvedTarget target in sharing) yield return target;
                continue;
            }

            foreach ((SolvedTarget target, SolvedPart part, byte[] bytes) in solver.Solve(sharing, take(group.Key, (int)sharing[0].Source.Shape.RowLength), errorOf(group.Key), group.Key.Expert >= 0 ? evenTokens : 0))
            {
                solved.Add(part, target.Type, target.Source.Shape, bytes);
                yield return target;
                if (part.Solver == LayerSolver.FewTokensFallback) starved.Add($"{target.Tensor.Name} ({part.TokensSeen})");
            }

            solved.Keep();
        }

        ReportStarved(starved);
    }

    /// <summary>Tokens that an expert would see if all saw as many; 0 where that does not matter.</summary>
    protected double EvenTokens(long layerTokens) =>
        Job.AllExperts || Source.Config.NumExperts == 0 ? 0 : (double)layerTokens * Source.Config.NumExpertsPerTok / Source.Config.NumExperts;

    protected static LinearInputKind StageOf(LinearInputKind kind) => kind switch
    {
        LinearInputKind.ExpertFeedForward => LinearInputKind.FeedForward,
        LinearInputKind.ExpertDown or LinearInputKind.SharedDown => LinearInputKind.FeedForwardDown,
        _ => kind,
    };

    private void ReportStarved(List<string> starved)
    {
        if (starved.Count == 0) return;
        string found = string.Create(CultureInfo.InvariantCulture, $"{starved.Count} matrices of experts saw too few tokens for a Hessian");
        string list = string.Join(", ", starved);
        if (_strict)
        {
            throw new QuantException(ErrorKind.Substitution, $"--strict refuses to round them: {found}")
            {
                Rule = StatisticsRules.ExpertsSeen, Tensor = starved[0].Split(' ')[0], Found = $"{list} (tokens in brackets)", Remedy = "Calibrate on more, or more varied, text, or with --all-experts.",
            };
        }

        Context.Events.Report(new QuantEvent(
            "experts-few-tokens", $"{found} and are rounded ({LayerSolver.FewTokensFallback}), tokens in brackets: {list} [{StatisticsRules.ExpertsSeen.Id}]", starved[0].Split(' ')[0], IsSubstitution: true));
    }

    /// <summary>Adds what, beside model and types, decides which codes are chosen.</summary>
    public void AddSettings(Dictionary<string, string> settings)
    {
        GptqOptions gptq = Job.Options;
        settings["calibration"] = RunSettings.Hash(CalibrationIdentity);
        settings["smoothing"] = Text(Job.Smoothing);
        settings["damping"] = Text(gptq.Damping);
        settings["shrinkage"] = Text(gptq.Shrinkage);
        settings["activation order"] = $"{gptq.ActivationOrder}{(gptq.PermutesColumns ? ", permuted" : "")}";
        settings["passes"] = string.Create(CultureInfo.InvariantCulture, $"{gptq.DescentPasses}+{gptq.RefitPasses}");
        settings["input correction"] = Text(gptq.InputCorrection);
        settings["all experts"] = $"{Job.AllExperts}";
        settings["exact"] = $"{Context.Exact}";
        settings["vectors"] = $"{Simd.Level}";

        static string Text(double value) => value.ToString(CultureInfo.InvariantCulture);
    }

    public virtual void Dispose()
    {
    }
}
