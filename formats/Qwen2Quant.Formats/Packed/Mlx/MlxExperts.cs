using System.Globalization;

namespace Qwen2Quant.Formats.Packed.Mlx;

/// <summary>MLX stacks the experts of a layer: <c>….switch_mlp.up_proj</c> [E, …] holds <c>….experts.0.up_proj</c> and on.</summary>
internal static class MlxExperts
{
    private const string Stack = ".switch_mlp.", Experts = ".experts.";

    public static bool IsStack(string name) => name.Contains(Stack, StringComparison.Ordinal);

    /// <summary>The name of one expert's tensor in a stack.</summary>
    public static string NameOf(string stackName, long expert) => stackName.Replace(Stack, string.Create(CultureInfo.InvariantCulture, $"{Experts}{expert}."), StringComparison.Ordinal);

    /// <summary>The stack that an expert's tensor belongs to, and its place there; null for other tensors.</summary>
    public static (string Name, int Index)? StackOf(string name)
    {
        int at = name.IndexOf(Experts, StringComparison.Ordinal);
        if (at < 0) return null;
        int first = at + Experts.Length, dot = name.IndexOf('.', first);
        if (dot < 0 || !int.TryParse(name.AsSpan(first, dot - first), NumberStyles.None, CultureInfo.InvariantCulture, out int index)) return null;
        return (string.Concat(name.AsSpan(0, at), Stack, name.AsSpan(dot + 1)), index);
    }
}
