using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Proving;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Benchmarks.Presets;

/// <summary>A model that many candidates are compared with: its hidden states are kept, so that each window runs through it once.</summary>
internal sealed class MeasuredBase : ILogitModel
{
    private readonly LoadedModel _model;
    private readonly RunContext _context;
    private readonly WindowPlan _windows;
    private readonly Dictionary<int, float[]> _states = [];

    public MeasuredBase(Checkpoint checkpoint, int windowCount, RunContext context)
    {
        _model = new LoadedModel(checkpoint, context);
        _context = context;
        EvaluationText text = EvaluationText.Load(context.Files, "builtin:text", Stream.Null);
        _windows = WindowPlan.Create(
            _model.Tokenizer.Encode(text.Text, parseSpecial: false),
            new WindowOptions { Chunks = windowCount, Sampling = WindowSampling.Spread, Protocol = ScoringProtocol.Full, BeginToken = _model.Tokenizer.LeadingId },
            text.Name);
        PerplexityResult result = PerplexityRun.Run(this, _windows, new RunOptions { Threads = context.Threads }, context.Cancellation);
        (Perplexity, ScoredTokens) = (result.Perplexity, result.Tokens);
    }

    public double Perplexity { get; }
    public long ScoredTokens { get; }
    public int VocabularySize => _model.VocabularySize;
    public int HiddenSize => _model.HiddenSize;

    /// <param name="divergences">Receives the divergence of each position.</param>
    public ComparisonResult Compare(string candidatePath, ICollection<double> divergences)
    {
        using Checkpoint candidate = Checkpoint.Open(candidatePath, _context);
        return ComparisonRun.Run(this, new LoadedModel(candidate, _context), _windows, ids => _model.Tokenizer.Decode([.. ids]), new RunOptions { Threads = _context.Threads, Divergences = divergences }, _context.Cancellation);
    }

    public void Forward(ReadOnlySpan<int> tokens, Span<float> hidden)
    {
        HashCode hash = default;
        foreach (int token in tokens) hash.Add(token);
        int key = hash.ToHashCode();
        if (!_states.TryGetValue(key, out float[]? states))
        {
            states = new float[tokens.Length * HiddenSize];
            _model.Forward(tokens, states);
            _states.Add(key, states);
        }

        states.CopyTo(hidden);
    }

    public void Logits(ReadOnlySpan<float> hidden, int rowCount, Span<float> logits) => _model.Logits(hidden, rowCount, logits);
}
