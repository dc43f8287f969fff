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

/// <summary>Sees what two forward passes over the same text bring to the same input, side by side.</summary>
public interface IActivationPairObserver
{
    /// <summary>As <see cref="IActivationObserver.Observe"/>, for inputs that all tokens take.</summary>
    /// <param name="rows">[rowCount, width], of the pass at work.</param>
    /// <param name="originals">The same of the pass that it is compared with.</param>
    void Observe(LinearInput input, ReadOnlySpan<float> rows, ReadOnlySpan<float> originals, int rowCount);
}
