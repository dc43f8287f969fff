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
    /// <param name="originals">A pass over the same windows, before the same layer, that goes through it as well, and who sees its inputs beside this one's; null for none.</param>
    /// <exception cref="QuantException">As in <see cref="RunLayer"/>.</exception>
    /// <exception cref="OperationCanceledException">Between two matrices or batches.</exception>
    public void RunLayerByInputs(
        int layer,
        IActivationObserver observer,
        Action<LinearInputKind> solve,
        bool allExperts = false,
        Action<int>? advance = null,
        (LayerwisePass Pass, IActivationPairObserver Observer)? originals = null,
        CancellationToken cancellation = default)
    {
        ActivationTap tap = new(observer);
        IReadOnlyList<WeightMatrix> loaded = BeginInputs(layer, cancellation), others = originals?.Pass.BeginInputs(layer, cancellation) ?? [];
        try
        {
            foreach (LinearInputKind kind in Stages)
            {
                originals?.Pass.ShowStage(kind, layer, default, null, allExperts, cancellation);
                ShowStage(kind, layer, tap, originals, allExperts, cancellation);
                solve(kind);
            }

            originals?.Pass.EndInputs(layer, null, cancellation);
            EndInputs(layer, advance, cancellation);
        }
        finally
        {
            foreach (WeightMatrix matrix in loaded.Concat(others)) matrix.Release();
        }
    }

    private static readonly LinearInputKind[] Stages = [LinearInputKind.Attention, LinearInputKind.AttentionOutput, LinearInputKind.FeedForward, LinearInputKind.FeedForwardDown];

    private StateRows Carry => _carry ??= new StateRows((long)WindowCount * WindowLength, _model.CarryWidth, _options.CarryFile);

    private IReadOnlyList<WeightMatrix> BeginInputs(int layer, CancellationToken cancellation)
    {
        Cache.MoveTo(layer);
        return _model.LoadLayer(layer, _options.LayerBytes, cancellation);
    }

    private void ShowStage(
        LinearInputKind kind, int layer, ActivationTap tap, (LayerwisePass Pass, IActivationPairObserver Observer)? originals, bool allExperts, CancellationToken cancellation)
    {
        Qwen2Config config = _model.Config;
        bool isDense = _model.IsDense(layer);
        // What the next input takes of the attention is added to the states; all else is kept beside them.
        if (kind == LinearInputKind.AttentionOutput) Carry.Width = config.QueryWidth;
        if (kind == LinearInputKind.FeedForwardDown && isDense) Carry.Width = _model.DenseWidth(layer);
        ForEachBatch((states, firstRow, count, length) =>
        {
            switch (kind)
            {
                case LinearInputKind.Attention:
                    Pair(_model.ShowAttentionInput(layer, states, count, length, Cache, tap), config.HiddenSize);
                    break;
                case LinearInputKind.AttentionOutput:
                    _model.Attend(layer, _model.ShowAttentionInput(layer, states, count, length, Cache, default), count, length, Cache, tap, out float* attended);
                    Pair(attended, config.QueryWidth);
                    Carry.Write(firstRow, attended, count);
                    break;
                case LinearInputKind.FeedForward:
                    float* kept = Cache.Scratch.Get(Slot.Attention, (long)count * config.QueryWidth);
                    Carry.Read(firstRow, kept, count);
                    _model.AddAttention(layer, kept, count, states);
                    float* normalized = _model.NormalizeFeedForward(layer, states, count, length, Cache);
                    tap.Show(new LinearInput(kind, layer), normalized, count, config.HiddenSize);
                    Pair(normalized, config.HiddenSize);
                    if (!isDense) _model.ShowExpertInputs(layer, normalized, count, Cache, tap, allExperts);
                    break;
                case LinearInputKind.FeedForwardDown when isDense:
                    float* activated = _model.Activate(layer, _model.NormalizeFeedForward(layer, states, count, length, Cache), count, Cache, tap);
                    Pair(activated, Carry.Width);
                    Carry.Write(firstRow, activated, count);
                    break;
                default:
                    _model.ShowExpertDown(layer, _model.NormalizeFeedForward(layer, states, count, length, Cache), count, Cache, tap, allExperts);
                    break;
            }

            void Pair(float* rows, int width)
            {
                if (originals is not { } other) return;
                float* theirs = other.Pass.ShownRows(kind, layer, firstRow, count, length);
                other.Observer.Observe(new LinearInput(kind, layer), new ReadOnlySpan<float>(rows, count * width), new ReadOnlySpan<float>(theirs, count * width), count);
            }
        }, cancellation, keepsStates: kind != LinearInputKind.FeedForward);
    }

    /// <summary>Rows of the input that was shown last; valid until this pass goes on.</summary>
    private float* ShownRows(LinearInputKind kind, int layer, long firstRow, int count, int windowLength)
    {
        if (kind is LinearInputKind.AttentionOutput or LinearInputKind.FeedForwardDown)
        {
            float* rows = Cache.Scratch.Get(kind == LinearInputKind.AttentionOutput ? Slot.Attention : Slot.Activated, (long)count * Carry.Width);
            Carry.Read(firstRow, rows, count);
            return rows;
        }

        float* states = Residual(count);
        _states.Read(firstRow, states, count);
        return kind == LinearInputKind.Attention ? _model.ShowAttentionInput(layer, states, count, windowLength, Cache, default) : _model.NormalizeFeedForward(layer, states, count, windowLength, Cache);
    }

    private void EndInputs(int layer, Action<int>? advance, CancellationToken cancellation) => ForEachBatch((states, firstRow, count, length) =>
    {
        if (_model.IsDense(layer))
        {
            float* activated = Cache.Scratch.Get(Slot.Activated, (long)count * Carry.Width);
            Carry.Read(firstRow, activated, count);
            _model.AddFeedForward(layer, activated, count, states);
        }
        else
        {
            _model.Mix(layer, _model.NormalizeFeedForward(layer, states, count, length, Cache), count, states, Cache);
        }

        advance?.Invoke(count);
    }, cancellation);
}
