using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Validation;

/// <summary>The base of a comparison, window by window: a model that runs, or a file of what it said.</summary>
internal interface IBaseRows : IDisposable
{
    /// <summary>Rows that it holds at a time.</summary>
    int RowsPerChunk { get; }

    /// <summary>Lets a model that works layer by layer run all windows; before the first <see cref="Forward"/>.</summary>
    void RunLayers(IProgressSink progress, string title, CancellationToken cancellation);

    /// <summary>Goes to window <paramref name="index"/> of the plan.</summary>
    void Forward(int index);

    /// <summary>Makes the rows of <paramref name="rowCount"/> positions of the window.</summary>
    void ComputeRows(int firstPosition, int rowCount);

    /// <summary>One value for each token of the vocabulary: logits, or log-probabilities.</summary>
    ReadOnlySpan<float> Row(int row);

    /// <summary>Holds a candidate's logits against a row.</summary>
    /// <param name="expected">The token that the text has.</param>
    RowScore Score(int row, ReadOnlySpan<float> candidateLogits, int expected, SimdLevel level);

    /// <summary>The error for a row of which <see cref="Score"/> made a loss that is not finite.</summary>
    QuantException NotFinite(int row);
}
