using System.Globalization;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>
/// The order in which llama-quantize writes tensors: by layer number, then by name; names without <c>blk.N.</c> come first.
/// Any order loads; this one makes outputs comparable.
/// </summary>
public sealed class GgufTensorOrder : IComparer<string>
{
    private const string LayerPrefix = "blk.";

    public static GgufTensorOrder Instance { get; } = new();

    public int Compare(string? x, string? y)
    {
        int byLayer = LayerOf(x).CompareTo(LayerOf(y));
        return byLayer != 0 ? byLayer : string.CompareOrdinal(x, y);
    }

    private static int LayerOf(string? name)
    {
        if (name is null || !name.StartsWith(LayerPrefix, StringComparison.Ordinal)) return -1;
        ReadOnlySpan<char> rest = name.AsSpan(LayerPrefix.Length);
        int dot = rest.IndexOf('.');
        return dot > 0 && int.TryParse(rest[..dot], NumberStyles.None, CultureInfo.InvariantCulture, out int layer) ? layer : -1;
    }
}
