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
}
