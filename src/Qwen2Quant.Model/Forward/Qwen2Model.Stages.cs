using Qwen2Quant.Core.Tensors;
using Slot = Qwen2Quant.Model.ForwardScratch.Slot;

namespace Qwen2Quant.Model;

/// <summary>The steps of a layer, from one input of linear layers to the next.</summary>
public sealed unsafe partial class Qwen2Model
{
    /// <summary>True for layers with one MLP, false for mixtures of experts.</summary>
    internal bool IsDense(int layer) => _layers[layer].Dense is not null;

    /// <summary>Inner width of a dense layer's MLP.</summary>
    internal int DenseWidth(int layer) => _layers[layer].Dense!.Width;

    /// <summary>Floats a token that <see cref="LayerwisePass"/> keeps between the steps of a layer.</summary>
    internal int CarryWidth => Math.Max(Config.QueryWidth, _layers.Max(layer => layer.Dense?.Width ?? 0));

    /// <summary>The bytes of a matrix are from now on those of <paramref name="entry"/>, of the same shape; what was resident of it is dropped.</summary>
    internal void Replace(int layer, string name, ITensorSource source, TensorEntry entry)
    {
        foreach (WeightMatrix matrix in _layers[layer].Matrices)
        {
            if (matrix.Replace(name, source, entry, _team)) return;
        }

        throw new ArgumentException($"layer {layer} has no matrix {name}", nameof(name));
    }

    /// <summary>The values of a norm's weight or of a bias are from now on those.</summary>
    internal void ReplaceVector(int layer, string name, ReadOnlySpan<float> values) => values.CopyTo(_layers[layer].Vector(name, Config));

    /// <summary>The normalized states that q, k and v take.</summary>
    internal float* ShowAttentionInput(int layer, float* states, int count, int windowLength, KvCache cache, ActivationTap tap)
    {
        float* normalized = cache.Scratch.Get(Slot.Normalized, (long)count * Config.HiddenSize);
        Normalize(states, _layers[layer].AttentionNorm, normalized, count, windowLength, cache.Length, layer == 0 ? "the embedding" : "the MLP of", layer - 1);
        tap.Show(new LinearInput(LinearInputKind.Attention, layer), normalized, count, Config.HiddenSize);
        return normalized;
    }

    /// <summary>q, k, v and the heads' results side by side, which o takes.</summary>
    internal void Attend(int layer, float* normalized, int count, int windowLength, KvCache cache, ActivationTap tap, out float* attended)
    {
        int rowWidth = Config.QueryWidth + (2 * Config.KeyValueWidth);
        LayerWeights weights = _layers[layer];
        float* qkv = cache.Scratch.Get(Slot.QueryKeyValue, (long)count * rowWidth);
        attended = cache.Scratch.Get(Slot.Attention, (long)count * Config.QueryWidth);
        weights.QueryKeyValue.Multiply(normalized, count, qkv, _team);
        for (int first = 0; first < count; first += windowLength)
        {
            float* windowQkv = qkv + ((long)first * rowWidth);
            _attention.Append(layer, cache, windowQkv, weights.QueryKeyValueBias, windowLength);
            _attention.Attend(layer, cache, windowQkv, cache.Length, windowLength, Config.WindowOf(layer), attended + ((long)first * Config.QueryWidth));
        }

        tap.Show(new LinearInput(LinearInputKind.AttentionOutput, layer), attended, count, Config.QueryWidth);
    }

    internal void AddAttention(int layer, float* attended, int count, float* states) => _layers[layer].AttentionOutput.Multiply(attended, count, states, _team, accumulate: true);

    /// <summary>The normalized states that gate and up, or the mixture, take.</summary>
    internal float* NormalizeFeedForward(int layer, float* states, int count, int windowLength, KvCache cache)
    {
        float* normalized = cache.Scratch.Get(Slot.Normalized, (long)count * Config.HiddenSize);
        Normalize(states, _layers[layer].FeedForwardNorm, normalized, count, windowLength, cache.Length, "the attention of", layer);
        return normalized;
    }

    /// <summary>What down takes, of a dense layer.</summary>
    internal float* Activate(int layer, float* normalized, int count, KvCache cache, ActivationTap tap) =>
        _feedForward.Activate(_layers[layer].Dense!, cache.Scratch, normalized, count, new LinearInput(LinearInputKind.FeedForwardDown, layer), tap);

    internal void AddFeedForward(int layer, float* activated, int count, float* states) => _layers[layer].Dense!.Down.Multiply(activated, count, states, _team, accumulate: true);

    /// <summary>Shows the rows that each expert takes: those routed to it, or all.</summary>
    internal void ShowExpertInputs(int layer, float* normalized, int count, KvCache cache, ActivationTap tap, bool allExperts) =>
        _feedForward.ShowExpertInputs(_layers[layer].Sparse!, cache.Scratch, normalized, count, layer, tap, allExperts);

    /// <summary>Shows what the down matrices of the experts take, for the rows routed to them or for all, and those of the shared one.</summary>
    internal void ShowExpertDown(int layer, float* normalized, int count, KvCache cache, ActivationTap tap, bool allExperts) =>
        _feedForward.ShowExpertDown(_layers[layer].Sparse!, cache.Scratch, normalized, count, layer, tap, allExperts);

    internal void Mix(int layer, float* normalized, int count, float* states, KvCache cache) =>
        _feedForward.Mix(_layers[layer].Sparse!, cache.Scratch, normalized, count, states, layer, default);
}
