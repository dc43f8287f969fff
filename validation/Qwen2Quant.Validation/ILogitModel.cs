using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Validation;

/// <summary>A language model as a measurement sees it: tokens in, logits out.</summary>
public interface ILogitModel
{
    /// <summary>Logits per position, padding ids included.</summary>
    int VocabularySize { get; }

    int HiddenSize { get; }

    /// <summary>Runs <paramref name="tokens"/> in a fresh context at positions 0 and on.</summary>
    /// <param name="hidden">Receives the states after the final norm, row-major [tokens, <see cref="HiddenSize"/>].</param>
    void Forward(ReadOnlySpan<int> tokens, Span<float> hidden);

    /// <summary>Logits of <paramref name="rowCount"/> rows of <paramref name="hidden"/>, row-major [rowCount, <see cref="VocabularySize"/>].</summary>
    void Logits(ReadOnlySpan<float> hidden, int rowCount, Span<float> logits);

    /// <summary>
    /// Takes all windows through the model's layers at once, where its weights do not stay in memory: each is then read once for all windows.
    /// Null, which most models answer, has <see cref="Forward"/> called for each window.
    /// </summary>
    /// <param name="title">What the progress is called.</param>
    IWindowStates? RunLayers(WindowPlan plan, IProgressSink progress, string title, CancellationToken cancellation) => null;
}
