using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>
/// GPTQ in the sequential schedule: layer by layer, and in a layer input by input, all windows show what they bring to the matrices, these are solved, and the windows go on
/// through what was written. Statistics of one layer exist at a time, and none reaches a file.
/// </summary>
internal sealed class SequentialSolving
{
    private readonly Checkpoint _source;
    private readonly ConversionPlan _plan;
    private readonly GptqJob _job;
    private readonly Effort _effort;
    private readonly bool _strict;
    private readonly RunContext _context;
    private readonly WorkerTeam _team;
    private readonly ILookup<int, SolvedTarget> _byLayer;
    private readonly LoadedModel _model;
    private readonly WindowPlan _windows;

    public SequentialSolving(Checkpoint source, ConversionPlan plan, GptqJob job, Effort effort, bool strict, RunContext context)
    {
        (_source, _plan, _job, _effort, _strict, _context) = (source, plan, job, effort, strict, context);
        _team = new WorkerTeam(context.Threads);
        _byLayer = Targets(source, plan).ToLookup(target => target.Input.Layer);
        _model = LoadedModel.ForWindows(source, context);
        _windows = DiagonalCalibration.Windows(_model.Tokenizer, job.Text, job.Calibration, context);
    }

    private readonly StageTimes _times = new();
    private MemoryPlan? _memory;

    /// <summary>Decides how the run will use memory.</summary>
    /// <exception cref="QuantException">The memory given is too small.</exception>
    public void PlanMemory() => _memory = MemoryPlan.DecideByInputs(_context.MemoryBytes, _model.Model, new WindowShape(_windows.WindowCount, _windows.Context, 0), SolvingBytes());

    /// <param name="writeSeconds">Null when nothing was done yet.</param>
    public GptqReport Report(double? writeSeconds) => new(
        _job.Text.Name,
        _windows.WindowCount,
        _windows.Context,
        (long)_windows.WindowCount * _windows.Context,
        _job.Options.Damping,
        _job.Options.ActivationOrder,
        _job.Options.DescentPasses,
        _job.AllExperts,
        _memory!.PlannedBytes,
        writeSeconds is { } write ? new GptqSeconds(_times[Stage.Forward], _times[Stage.Gram], _times[Stage.Factor], _times[Stage.Solve], write) : null);

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

    /// <exception cref="QuantException">Statistics are not usable, activations overflow, the disk or the memory does not suffice. What whole layers gave stays for <c>--resume</c>.</exception>
    public SolvedTensors Run()
    {
        SolvedTensors solved = SolvedTensors.Open(_context.Files, _plan.Target, Identity(), _job.Resume, out bool foundOther);
        if (foundOther) _context.Events.Report(new QuantEvent("restarted", "an interrupted run had begun this output; its layers are solved again, as --resume was not given"));
        try
        {
            using IDisposable timed = _times.Measure(Stage.Forward);
            using LayerwisePass pass = _model.BeginLayers(_windows, _memory!, keepsCarry: true);
            LayerSolver solver = new(_source.Tensors, _job, _effort, _team, _times, _context.Events);
            int layers = _source.Config.NumHiddenLayers;
            long total = (long)_windows.WindowCount * _windows.Context, passed = 0, shown = 0;
            using IProgressTask progress = _context.Progress.Start("Solving", total, "tokens");
            for (int layer = 0; layer < layers; layer++)
            {
                _context.Cancellation.ThrowIfCancellationRequested();
                RunLayer(pass, layer, solver, solved, tokens =>
                {
                    passed += tokens;
                    progress.Advance((passed / layers) - shown);
                    shown = passed / layers;
                });
            }

            return solved;
        }
        catch (Exception error)
        {
            solved.Dispose();
            if (error is QuantException { Path: null } known) throw known.In(_source.Location.Path);
            throw;
        }
    }

    private void RunLayer(LayerwisePass pass, int layer, LayerSolver solver, SolvedTensors solved, Action<int> advance)
    {
        SolvedTarget[] targets = [.. _byLayer[layer]];
        if (targets.Length == 0 || solved.Begin(layer, targets.ToDictionary(target => target.Tensor.Name, target => (target.Type, target.Source.Shape), StringComparer.Ordinal)))
        {
            foreach (SolvedTarget target in targets) pass.Replace(layer, target.Tensor.Name, solved, solved.Find(target.Tensor.Name)!);
            pass.RunLayer(layer, null, advance, _context.Cancellation);
            return;
        }

        GramCollector grams = new(_team, _times);
        Qwen2Config config = _source.Config;
        double evenTokens = config.IsSparse(layer) && !_job.AllExperts ? (double)_windows.WindowCount * _windows.Context * config.NumExpertsPerTok / config.NumExperts : 0;
        List<string> starved = [];
        pass.RunLayerByInputs(layer, grams, Solve, _job.AllExperts, advance, _context.Cancellation);
        solved.Finish();
        ReportStarved(layer, starved);

        void Solve(LinearInputKind kind)
        {
            foreach (IGrouping<LinearInput, SolvedTarget> group in targets.Where(target => StageOf(target.Input.Kind) == kind).GroupBy(target => target.Input))
            {
                _context.Cancellation.ThrowIfCancellationRequested();
                foreach ((SolvedTarget target, SolvedPart part, byte[] bytes) in solver.Solve([.. group], grams.Take(group.Key), group.Key.Expert >= 0 ? evenTokens : 0))
                {
                    TensorEntry entry = solved.Add(part, target.Type, target.Source.Shape, bytes);
                    pass.Replace(layer, target.Tensor.Name, solved, entry);
                    if (part.Solver != GptqSolver.Name) starved.Add($"{target.Tensor.Name} ({part.TokensSeen})");
                }
            }

            grams.Clear();
        }
    }

    private static LinearInputKind StageOf(LinearInputKind kind) => kind switch
    {
        LinearInputKind.ExpertFeedForward => LinearInputKind.FeedForward,
        LinearInputKind.ExpertDown or LinearInputKind.SharedDown => LinearInputKind.FeedForwardDown,
        _ => kind,
    };

    private void ReportStarved(int layer, List<string> starved)
    {
        if (starved.Count == 0) return;
        string found = string.Create(CultureInfo.InvariantCulture, $"{starved.Count} matrices of experts in layer {layer} saw too few tokens for a Hessian");
        string list = string.Join(", ", starved);
        if (_strict)
        {
            throw new QuantException(ErrorKind.Substitution, $"--strict refuses to round them: {found}")
            {
                Rule = StatisticsRules.ExpertsSeen, Tensor = starved[0].Split(' ')[0], Found = $"{list} (tokens in brackets)", Remedy = "Calibrate on more, or more varied, text, or with --all-experts.",
            };
        }

        _context.Events.Report(new QuantEvent(
            "experts-few-tokens", $"{found} and are rounded ({LayerSolver.FewTokensFallback}), tokens in brackets: {list} [{StatisticsRules.ExpertsSeen.Id}]", starved[0].Split(' ')[0], IsSubstitution: true));
    }

    /// <summary>Bytes of the Gram matrices of one stage, of the Hessian made of one of them, and of the weights being solved.</summary>
    private long SolvingBytes()
    {
        long most = 0;
        foreach (IGrouping<(int Layer, LinearInputKind), SolvedTarget> stage in _byLayer.SelectMany(layer => layer).GroupBy(target => (target.Input.Layer, StageOf(target.Input.Kind))))
        {
            long grams = stage.Select(target => (target.Input, Width: (int)target.Source.Shape.RowLength)).Distinct().Sum(input => GramMatrix.ByteCount(input.Width));
            long hessian = stage.Max(target => GptqHessian.ByteCount((int)target.Source.Shape.RowLength));
            most = Math.Max(most, grams + hessian);
        }

        long encoded = _byLayer.Max(layer => layer.Sum(target => target.Type.ByteCount(target.Source.Shape.ValueCount)));
        return most + encoded + LayerSolver.WorkingBytes(_context.Threads);
    }

    private SolvingIdentity Identity()
    {
        StringBuilder types = new();
        foreach (SolvedTarget target in _byLayer.SelectMany(layer => layer)) types.Append(CultureInfo.InvariantCulture, $"{target.Tensor.Name} {target.Type.Name}\n");
        StringBuilder tokens = new();
        for (int window = 0; window < _windows.WindowCount; window++)
        {
            foreach (int token in _windows.Tokens(window)) tokens.Append(CultureInfo.InvariantCulture, $"{token} ");
            tokens.Append('\n');
        }

        string options = string.Create(
            CultureInfo.InvariantCulture,
            $"effort {_effort.ToString().ToLowerInvariant()}, damping {_job.Options.Damping}, activation order {_job.Options.ActivationOrder}, descent passes {_job.Options.DescentPasses}, all experts {_job.AllExperts}, exact {_context.Exact}, vectors {Simd.Level}");
        return new SolvingIdentity(Conversion.Version, _source.Identity, Hash(types), Hash(tokens), options);

        static string Hash(StringBuilder text) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text.ToString())));
    }
}
