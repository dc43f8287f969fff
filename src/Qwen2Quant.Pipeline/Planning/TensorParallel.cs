using System.Globalization;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Model;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>Into how many parts engines can cut a packed model: heads go whole to a part, and of o and down, whose inputs are cut, whole groups.</summary>
internal static class TensorParallel
{
    private static readonly int[] Degrees = [2, 4, 8];

    /// <summary>An event for each degree that the shapes and groups do not allow.</summary>
    public static IEnumerable<QuantEvent> Check(Qwen2Config config, FusedUnits units)
    {
        foreach (int degree in Degrees)
        {
            if (Obstacle(config, units, degree) is { } obstacle) yield return new QuantEvent("tensor-parallel", string.Create(CultureInfo.InvariantCulture, $"not in {degree} parts: {obstacle}"));
        }
    }

    private static string? Obstacle(Qwen2Config config, FusedUnits units, int degree)
    {
        if (config.NumAttentionHeads % degree != 0) return $"{config.NumAttentionHeads} attention heads";
        // Fewer value heads than parts are repeated.
        if (config.NumKeyValueHeads % degree != 0 && degree % config.NumKeyValueHeads != 0) return $"{config.NumKeyValueHeads} value heads";
        foreach (CanonicalTensor tensor in units.Linears)
        {
            bool isCutAlongInputs = tensor.Role is TensorRole.AttentionO or TensorRole.FfnDown or TensorRole.SharedFfnDown or TensorRole.ExpertDown;
            if (!isCutAlongInputs || units.SchemeOf(tensor.Name) is not { GroupSize: > 0 } scheme) continue;
            long inputs = tensor.Shape.RowLength;
            if (inputs % degree == 0 && inputs / degree % scheme.GroupSize == 0) continue;
            string remedy = tensor.Role == TensorRole.AttentionO ? "smaller groups may help" : "smaller groups or pad --intermediate-multiple may help";
            return string.Create(CultureInfo.InvariantCulture, $"{PackedLayout.Module(tensor.Name)} has {inputs} inputs in groups of {scheme.GroupSize}, {inputs / (double)scheme.GroupSize / degree:0.##} groups a part; {remedy}");
        }

        return null;
    }
}
