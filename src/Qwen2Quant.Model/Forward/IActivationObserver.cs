namespace Qwen2Quant.Model;

/// <summary>Sees what flows into the linear layers of a forward pass, for statistics. Without one the pass does nothing for it.</summary>
public interface IActivationObserver
{
    /// <summary>
    /// Is called from the thread that runs the pass, input by input in the order of the model, and for each in the order of the text.
    /// An input that several matrices share is shown once.
    /// </summary>
    /// <param name="rows">[rowCount, width], one row for each token; of an expert only the tokens routed to it. Valid during the call.</param>
    /// <param name="rowCount">At least 1.</param>
    void Observe(LinearInput input, ReadOnlySpan<float> rows, int rowCount);
}
