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
    private KvCache? _cache;

    public LoadedModel(Checkpoint checkpoint, RunContext context)
    {
        Checkpoint = checkpoint;
        _model = Qwen2Model.Load(checkpoint.Config, checkpoint.Tensors, new ForwardOptions { Threads = context.Threads });
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

    public void Forward(ReadOnlySpan<int> tokens, Span<float> hidden)
    {
        if (_cache is null || _cache.Capacity < tokens.Length) _cache = _model.NewCache(tokens.Length);
        _cache.Truncate(0);
        _model.Forward(tokens, _cache, hidden, Observer);
    }

    public void Logits(ReadOnlySpan<float> hidden, int rowCount, Span<float> logits) => _model.Logits(hidden, rowCount, logits);
}
