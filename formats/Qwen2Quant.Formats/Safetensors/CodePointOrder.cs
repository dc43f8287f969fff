namespace Qwen2Quant.Formats.Safetensors;

/// <summary>The order of names by code point, which is that of their UTF-8 bytes: what Rust and Python sort by.</summary>
internal sealed class CodePointOrder : IComparer<string>
{
    public static CodePointOrder Instance { get; } = new();

    public int Compare(string? x, string? y)
    {
        ReadOnlySpan<char> left = x, right = y;
        int same = left.CommonPrefixLength(right);
        if (same == left.Length || same == right.Length) return left.Length - right.Length;
        bool leftIsAstral = char.IsSurrogate(left[same]), rightIsAstral = char.IsSurrogate(right[same]);
        return leftIsAstral == rightIsAstral ? left[same] - right[same] : leftIsAstral ? 1 : -1;
    }
}
