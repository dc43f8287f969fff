using System.Globalization;
using Qwen2Quant.Model;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>
/// A place in a layer where a scale for each channel can be folded in without changing the function: the producer's outputs are divided by it, the columns of
/// all matrices that take them multiplied.
/// </summary>
/// <param name="Name">For the report: the producer.</param>
/// <param name="Producers">Tensors whose values, or rows, are divided, one scale each.</param>
/// <param name="Consumers">Every matrix that takes the producer's outputs, quantized or not.</param>
/// <param name="Activity">The input whose power tells channels apart.</param>
/// <param name="Channels">The scale of each input; empty where each has its own.</param>
internal sealed record ScaleFold(string Name, IReadOnlyList<string> Producers, IReadOnlyList<CanonicalTensor> Consumers, LinearInput Activity, int[] Channels)
{
    /// <summary>The folds of a layer of Qwen2: input norm to q, k, v; v to o; the other norm to gate and up, in mixtures also to router, shared expert and its gate; up to down.</summary>
    /// <param name="normsOnly">Leaves out v and up, whose outputs have no norm before them: SmoothQuant's choice.</param>
    public static IEnumerable<ScaleFold> Of(TensorCatalogue catalogue, int layer, bool normsOnly)
    {
        Qwen2Config config = catalogue.Config;
        string prefix = string.Create(CultureInfo.InvariantCulture, $"model.layers.{layer}.");
        CanonicalTensor[] tensors = [.. catalogue.Tensors.Where(tensor => tensor.Layer == layer)];
        yield return new ScaleFold(
            prefix + "input_layernorm", [prefix + "input_layernorm.weight"], Of(TensorRole.AttentionQ, TensorRole.AttentionK, TensorRole.AttentionV), new LinearInput(LinearInputKind.Attention, layer), []);
        yield return new ScaleFold(
            prefix + "post_attention_layernorm",
            [prefix + "post_attention_layernorm.weight"],
            Of(TensorRole.FfnGate, TensorRole.FfnUp, TensorRole.Router, TensorRole.SharedExpertGate, TensorRole.SharedFfnGate, TensorRole.SharedFfnUp, TensorRole.ExpertGate, TensorRole.ExpertUp),
            new LinearInput(LinearInputKind.FeedForward, layer),
            []);
        if (normsOnly) yield break;
        string value = prefix + "self_attn.v_proj";
        int headsPerValue = config.NumAttentionHeads / config.NumKeyValueHeads;
        yield return new ScaleFold(
            value,
            config.QkvBias ? [value + ".weight", value + ".bias"] : [value + ".weight"],
            Of(TensorRole.AttentionO),
            new LinearInput(LinearInputKind.AttentionOutput, layer),
            // All heads that read one value head share its scales.
            [.. Enumerable.Range(0, config.QueryWidth).Select(input => (input / config.HeadDim / headsPerValue * config.HeadDim) + (input % config.HeadDim))]);
        foreach (CanonicalTensor down in Of(TensorRole.FfnDown, TensorRole.SharedFfnDown, TensorRole.ExpertDown))
        {
            string up = down.Name.Replace("down_proj", "up_proj", StringComparison.Ordinal);
            yield return new ScaleFold(up[..^".weight".Length], [up], [down], LinearInput.Of(down)!.Value, []);
        }

        CanonicalTensor[] Of(params TensorRole[] roles) => [.. tensors.Where(tensor => roles.Contains(tensor.Role))];
    }
}

/// <summary>The scales of one fold, as they are kept for a run that goes on.</summary>
/// <param name="Scales">One for each channel.</param>
/// <param name="Ratio">Exponent of the activations.</param>
/// <param name="UsesWeights">Whether weights counted too.</param>
/// <param name="LossBefore">Squared error of the consumers' outputs on the calibration text without the scales; 0 where it was not measured.</param>
internal sealed record FoldedScales(string Name, float[] Scales, double Ratio, bool UsesWeights, double LossBefore, double LossAfter);
