namespace Qwen2Quant.Model;

/// <summary>The places in a layer, and behind the last, where activations meet matrices.</summary>
public enum LinearInputKind
{
    /// <summary>The normalized states that q, k and v share.</summary>
    Attention,

    /// <summary>What o takes: the heads' results side by side.</summary>
    AttentionOutput,

    /// <summary>The normalized states that gate and up share; in a mixture also the router, the shared expert's gate and up, and its sigmoid's row.</summary>
    FeedForward,

    FeedForwardDown,
    SharedDown,

    /// <summary>The rows of <see cref="FeedForward"/> that are routed to one expert.</summary>
    ExpertFeedForward,

    ExpertDown,

    /// <summary>The states after the final norm.</summary>
    Output,
}

/// <summary>One input of linear layers: what statistics are keyed by.</summary>
/// <param name="Layer">-1 for <see cref="LinearInputKind.Output"/>.</param>
/// <param name="Expert">-1 outside the routed experts.</param>
public readonly record struct LinearInput(LinearInputKind Kind, int Layer, int Expert = -1)
{
    public static LinearInput Output { get; } = new(LinearInputKind.Output, -1);

    /// <summary>The input of a matrix; null for tensors that no activation is multiplied with. The embedding is none, even where it serves as the output.</summary>
    public static LinearInput? Of(CanonicalTensor tensor) => tensor.Role switch
    {
        TensorRole.AttentionQ or TensorRole.AttentionK or TensorRole.AttentionV => new(LinearInputKind.Attention, tensor.Layer),
        TensorRole.AttentionO => new(LinearInputKind.AttentionOutput, tensor.Layer),
        TensorRole.FfnGate or TensorRole.FfnUp or TensorRole.Router or TensorRole.SharedFfnGate or TensorRole.SharedFfnUp or TensorRole.SharedExpertGate =>
            new(LinearInputKind.FeedForward, tensor.Layer),
        TensorRole.FfnDown => new(LinearInputKind.FeedForwardDown, tensor.Layer),
        TensorRole.SharedFfnDown => new(LinearInputKind.SharedDown, tensor.Layer),
        TensorRole.ExpertGate or TensorRole.ExpertUp => new(LinearInputKind.ExpertFeedForward, tensor.Layer, tensor.Expert),
        TensorRole.ExpertDown => new(LinearInputKind.ExpertDown, tensor.Layer, tensor.Expert),
        TensorRole.Output => Output,
        _ => null,
    };
}

/// <summary>An observer, or none, as the forward pass hands it down.</summary>
internal readonly unsafe struct ActivationTap(IActivationObserver? observer)
{
    public void Show(LinearInput input, float* rows, int rowCount, int width) => observer?.Observe(input, new ReadOnlySpan<float>(rows, checked(rowCount * width)), rowCount);
}
