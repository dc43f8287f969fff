using System.Globalization;
using System.Text.Json.Serialization;

namespace Qwen2Quant.Validation;

/// <summary>The largest magnitude that an input of linear layers took over a text.</summary>
/// <param name="Input">The module that takes it, within its layer, as Hugging Face names it; matrices with one input by their fused name, such as <c>self_attn.qkv_proj</c>.</param>
/// <param name="Layer">Absent for <c>lm_head</c>.</param>
/// <param name="Expert">Absent outside the routed experts.</param>
/// <param name="Channel">Index in the input's row.</param>
/// <param name="Window">Number of the window in the text; absent for routed experts, which see chosen tokens only.</param>
/// <param name="Position">Index of the token in the window.</param>
public sealed record ActivationMaximum(
    string Input,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] int? Layer,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] int? Expert,
    float MaxAbs,
    int Channel,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] int? Window,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] int? Position)
{
    /// <summary>The largest finite number of half precision (binary16).</summary>
    public const float LargestHalf = 65504;

    /// <summary>The module's whole name.</summary>
    [JsonIgnore]
    public string Name => Layer is not { } layer ? Input : string.Create(
        CultureInfo.InvariantCulture, $"model.layers.{layer}.{(Expert is { } expert ? Input.Replace(".experts.", $".experts.{expert.ToString(CultureInfo.InvariantCulture)}.", StringComparison.Ordinal) : Input)}");
}

/// <summary>The largest activations of both models of a comparison.</summary>
public sealed record ActivationComparison(IReadOnlyList<ActivationMaximum> Base, IReadOnlyList<ActivationMaximum> Candidate);
