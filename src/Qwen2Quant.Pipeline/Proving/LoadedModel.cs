using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Proving;

/// <summary>A checkpoint ready to run; the same forward pass whatever its container and types.</summary>
public sealed class LoadedModel : ILogitModel
{
    private readonly Qwen2Model _model;
    private readonly RunContext _context;
    private KvCache? _cache;
    private MemoryPlan? _plan;

    /// <summary>A model for any text: weights are kept if they fit in the memory given, else read at each use.</summary>
    public LoadedModel(Checkpoint checkpoint, RunContext context) : this(checkpoint, context, context.MemoryBytes)
    {
    }

    private LoadedModel(Checkpoint checkpoint, RunContext context, long residentBytes)
    {
        Checkpoint = checkpoint;
        _context = context;
        _model = Qwen2Model.Load(checkpoint.Config, checkpoint.Tensors, new ForwardOptions { Threads = context.Threads, ResidentBytes = residentBytes, Exact = context.Exact });
        // Any row of the output may be chosen, those that pad it too.
        Tokenizer = new BpeTokenizer(checkpoint.Tokenizer.WithVocabularySize(checkpoint.Config.VocabSize));
    }

    public Checkpoint Checkpoint { get; }

    public ITokenizer Tokenizer { get; }

    public Qwen2Model Model => _model;

    /// <summary>Sees the inputs of all linear layers.</summary>
    public IActivationObserver? Observer { get; init; }

    public int VocabularySize => _model.Config.VocabSize;

    public int HiddenSize => _model.Config.HiddenSize;

    /// <summary>A model for <see cref="Prepare"/>, which decides what of its weights is kept.</summary>
    public static LoadedModel ForWindows(Checkpoint checkpoint, RunContext context, IActivationObserver? observer = null) => new(checkpoint, context, residentBytes: 0) { Observer = observer };

    /// <summary>Decides how models run over windows within the memory given, and loads the weights that stay.</summary>
    /// <param name="heldBytes">What the caller keeps besides.</param>
    /// <returns>How the run goes about its logits.</returns>
    /// <exception cref="QuantException">The memory given is too small.</exception>
    public static RunOptions Prepare(IReadOnlyList<LoadedModel> models, WindowPlan windows, RunContext context, long heldBytes = 0)
    {
        MemoryPlan plan = MemoryPlan.Decide(
            context.MemoryBytes, [.. models.Select(model => model._model)], new WindowShape(windows.WindowCount, windows.Context, windows.ScoredPerWindow), heldBytes);
        foreach (LoadedModel model in models)
        {
            model._plan = plan;
            if (plan.IsWhole) model._model.MakeResident();
        }

        if (!plan.IsWhole) context.Events.Report(Describe(plan, context));
        return new RunOptions { Threads = context.Threads, Progress = context.Progress, LogitBytes = plan.LogitBytes };
    }

    public void Forward(ReadOnlySpan<int> tokens, Span<float> hidden)
    {
        if (_cache is null || _cache.Capacity < tokens.Length) _cache = _model.NewCache(tokens.Length);
        _cache.Truncate(0);
        try
        {
            _model.Forward(tokens, _cache, hidden, Observer);
        }
        catch (QuantException error) when (error.Path is null)
        {
            throw error.In(Checkpoint.Location.Path);
        }
    }

    public IWindowStates? RunLayers(WindowPlan plan, IProgressSink progress, string title, CancellationToken cancellation)
    {
        if (_plan is not { IsWhole: false } memory) return null;
        LayerwisePass pass = BeginLayers(plan, memory, keepsCarry: false);
        try
        {
            // Tokens count as done by the share of layers that they have gone through.
            long total = (long)plan.WindowCount * plan.Context, passed = 0, shown = 0;
            int layers = _model.Config.NumHiddenLayers;
            using IProgressTask task = progress.Start(title, total, "tokens");
            for (int layer = 0; layer < layers; layer++) pass.RunLayer(layer, Observer, Advance, cancellation);
            pass.Finish(Observer, cancellation);
            return new WindowStates(pass);

            void Advance(int tokens)
            {
                passed += tokens;
                task.Advance((passed / layers) - shown);
                shown = passed / layers;
            }
        }
        catch (QuantException error) when (error.Path is null)
        {
            pass.Dispose();
            throw error.In(Checkpoint.Location.Path);
        }
        catch
        {
            pass.Dispose();
            throw;
        }
    }

    /// <summary>All windows, embedded, before the first layer.</summary>
    /// <param name="keepsCarry">Layers will be taken input by input.</param>
    /// <exception cref="QuantException">A token is beyond the vocabulary, or states that do not fit in memory cannot be kept in a file.</exception>
    internal LayerwisePass BeginLayers(WindowPlan plan, MemoryPlan memory, bool keepsCarry)
    {
        ProcessMemory.Settle();
        if (memory.SpillsStates) RequireRoom(memory.StateBytes);
        LayerwisePass pass = new(_model, plan.WindowCount, plan.Context, new LayerwiseOptions
        {
            BatchTokens = memory.BatchTokens,
            LayerBytes = memory.LayerBytes,
            StateFile = memory.SpillsStates ? CreateStateFile() : null,
            CarryFile = memory.SpillsStates && keepsCarry ? CreateStateFile() : null,
        });
        try
        {
            int[] input = new int[plan.Context];
            for (int window = 0; window < plan.WindowCount; window++)
            {
                plan.CopyInput(window, input);
                pass.Embed(window, input);
            }

            return pass;
        }
        catch
        {
            pass.Dispose();
            throw;
        }
    }

    public void Logits(ReadOnlySpan<float> hidden, int rowCount, Span<float> logits)
    {
        // Not before the layers of all models have run.
        if (_plan is { HoldsOutput: true }) _model.MakeOutputResident();
        _model.Logits(hidden, rowCount, logits);
    }

    private const string StateFileRemedy = "Give more --memory, fewer windows, or set TMPDIR to another folder.";

    private void RequireRoom(long byteCount)
    {
        string folder = _context.TemporaryFolder;
        long free = OfStateFile(() => _context.Files.FreeBytes(Path.Combine(folder, "states")));
        if (free >= byteCount) return;
        throw new QuantException(ErrorKind.Resource, "the temporary folder has too little room for the hidden states that do not fit in memory")
        {
            Path = folder, Found = $"{free} bytes free", Expected = $"{byteCount} bytes", Remedy = StateFileRemedy,
        };
    }

    private IScratchFile CreateStateFile() => OfStateFile(() => _context.Files.CreateScratch(_context.TemporaryFolder));

    private T OfStateFile<T>(Func<T> call)
    {
        try
        {
            return call();
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            throw new QuantException(ErrorKind.Resource, $"no file for hidden states can be made: {error.Message}", error) { Path = _context.TemporaryFolder, Remedy = StateFileRemedy };
        }
    }

    private static QuantEvent Describe(MemoryPlan plan, RunContext context)
    {
        string states = plan.SpillsStates ? $"in a temporary file of {Size(plan.StateBytes)} in {TextEscape.Escape(context.TemporaryFolder)}" : "in memory";
        string weights = plan.HoldsLayer ? "each layer is read once for all windows" : $"layers do not fit either, and are read again for every {plan.BatchTokens} tokens";
        return new QuantEvent("layer-by-layer", $"the weights do not fit in {Size(context.MemoryBytes)} of memory: {weights}; hidden states are kept {states}");

        static string Size(long bytes) =>
            bytes >= 1_000_000_000 ? string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e9:0.##} GB") : string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e6:0.#} MB");
    }

    private sealed class WindowStates(LayerwisePass pass) : IWindowStates
    {
        public void Read(int index, Span<float> hidden) => pass.ReadStates(index, hidden);

        public void Dispose() => pass.Dispose();
    }
}
