using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Slot = Qwen2Quant.Model.ForwardScratch.Slot;

namespace Qwen2Quant.Model;

/// <summary>Layers taken input by input, for solvers that replace matrices before tokens go on through them.</summary>
public sealed unsafe partial class LayerwisePass
{
    /// <summary>Gives a matrix other bytes, of any type that decodes to the same shape; <paramref name="source"/> stays open as long as its layer is at work.</summary>
    public void Replace(int layer, string name, ITensorSource source, TensorEntry entry) => _model.Replace(layer, name, source, entry);

    /// <summary>As <see cref="Replace"/>, for norm weights and biases.</summary>
    public void ReplaceVector(int layer, string name, ReadOnlySpan<float> values) => _model.ReplaceVector(layer, name, values);

    /// <summary>All windows show what they bring to each input of a layer, and stay before it.</summary>
    /// <param name="allExperts">As in <see cref="RunLayerByInputs"/>.</param>
    /// <exception cref="QuantException">As in <see cref="RunLayer"/>.</exception>
    /// <exception cref="OperationCanceledException">Between two matrices or batches.</exception>
    public void ShowLayer(int layer, IActivationObserver observer, bool allExperts = false, CancellationToken cancellation = default)
    {
        ActivationTap tap = new(observer);
        Cache.MoveTo(layer);
        IReadOnlyList<WeightMatrix> loaded = _model.LoadLayer(layer, _options.LayerBytes, cancellation);
        try
        {
            ForEachBatch((states, _, count, length) =>
            {
                _model.Attend(layer, _model.ShowAttentionInput(layer, states, count, length, Cache, tap), count, length, Cache, tap, out float* attended);
                _model.AddAttention(layer, attended, count, states);
                float* normalized = _model.NormalizeFeedForward(layer, states, count, length, Cache);
                tap.Show(new LinearInput(LinearInputKind.FeedForward, layer), normalized, count, _model.Config.HiddenSize);
                if (_model.IsDense(layer))
                {
                    _model.Activate(layer, normalized, count, Cache, tap);
                    return;
                }

                _model.ShowExpertInputs(layer, normalized, count, Cache, tap, allExperts);
                _model.ShowExpertDown(layer, normalized, count, Cache, tap, allExperts);
            }, cancellation, keepsStates: true);
        }
        finally
        {
            foreach (WeightMatrix matrix in loaded) matrix.Release();
        }
    }

    /// <summary>
    /// Takes all windows through one layer input by input: all windows show an input of linear layers before any goes through the matrices that take it, so that
    /// these can be replaced first. Each matrix outside mixtures is multiplied once; a mixture's gate and up twice, as what its down takes is not kept.
    /// </summary>
    /// <param name="observer">Sees the inputs, in the order of the windows.</param>
    /// <param name="solve">Is called once all windows have shown an input: with <see cref="LinearInputKind.Attention"/>, <see cref="LinearInputKind.AttentionOutput"/>,
    /// <see cref="LinearInputKind.FeedForward"/> (and all experts'), <see cref="LinearInputKind.FeedForwardDown"/> (and those of all experts and of the shared one).</param>
    /// <param name="allExperts">Every expert shows every token, also those that are not routed to it.</param>
    /// <param name="advance">As in <see cref="RunLayer"/>.</param>
    /// <exception cref="QuantException">As in <see cref="RunLayer"/>.</exception>
    /// <exception cref="OperationCanceledException">Between two matrices or batches.</exception>
    public void RunLayerByInputs(
        int layer, IActivationObserver observer, Action<LinearInputKind> solve, bool allExperts = false, Action<int>? advance = null, CancellationToken cancellation = default)
    {
        ActivationTap tap = new(observer);
        Qwen2Config config = _model.Config;
        StateRows carry = _carry ??= new StateRows((long)WindowCount * WindowLength, _model.CarryWidth, _options.CarryFile);
        bool isDense = _model.IsDense(layer);
        Cache.MoveTo(layer);
        IReadOnlyList<WeightMatrix> loaded = _model.LoadLayer(layer, _options.LayerBytes, cancellation);
        try
        {
            ForEachBatch((states, _, count, length) => _model.ShowAttentionInput(layer, states, count, length, Cache, tap), cancellation, keepsStates: true);
            solve(LinearInputKind.Attention);

            carry.Width = config.QueryWidth;
            ForEachBatch((states, firstRow, count, length) =>
            {
                float* normalized = _model.ShowAttentionInput(layer, states, count, length, Cache, default);
                _model.Attend(layer, normalized, count, length, Cache, tap, out float* attended);
                carry.Write(firstRow, attended, count);
            }, cancellation, keepsStates: true);
            solve(LinearInputKind.AttentionOutput);

            ForEachBatch((states, firstRow, count, length) =>
            {
                float* attended = Cache.Scratch.Get(Slot.Attention, (long)count * config.QueryWidth);
                carry.Read(firstRow, attended, count);
                _model.AddAttention(layer, attended, count, states);
                float* normalized = _model.NormalizeFeedForward(layer, states, count, length, Cache);
                tap.Show(new LinearInput(LinearInputKind.FeedForward, layer), normalized, count, config.HiddenSize);
                if (!isDense) _model.ShowExpertInputs(layer, normalized, count, Cache, tap, allExperts);
            }, cancellation);
            solve(LinearInputKind.FeedForward);

            if (isDense) carry.Width = _model.DenseWidth(layer);
            ForEachBatch((states, firstRow, count, length) =>
            {
                float* normalized = _model.NormalizeFeedForward(layer, states, count, length, Cache);
                if (isDense) carry.Write(firstRow, _model.Activate(layer, normalized, count, Cache, tap), count);
                else _model.ShowExpertDown(layer, normalized, count, Cache, tap, allExperts);
            }, cancellation, keepsStates: true);
            solve(LinearInputKind.FeedForwardDown);

            ForEachBatch((states, firstRow, count, length) =>
            {
                if (isDense)
                {
                    float* activated = Cache.Scratch.Get(Slot.Activated, (long)count * carry.Width);
                    carry.Read(firstRow, activated, count);
                    _model.AddFeedForward(layer, activated, count, states);
                }
                else
                {
                    _model.Mix(layer, _model.NormalizeFeedForward(layer, states, count, length, Cache), count, states, Cache);
                }

                advance?.Invoke(count);
            }, cancellation);
        }
        finally
        {
            foreach (WeightMatrix matrix in loaded) matrix.Release();
        }
    }
}
