using System.Buffers;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>Metadata keys that belong to the container, whatever the model.</summary>
public static class GgufKeys
{
    public const string Alignment = "general.alignment";
    public const string QuantizationVersion = "general.quantization_version";

    /// <summary>Index of a part, from 0 (u16).</summary>
    public const string SplitNo = "split.no";

    /// <summary>Number of parts (u16).</summary>
    public const string SplitCount = "split.count";

    /// <summary>Tensors of all parts together (i32).</summary>
    public const string SplitTensorCount = "split.tensors.count";

    private static readonly SearchValues<char> SegmentCharacters = SearchValues.Create("abcdefghijklmnopqrstuvwxyz0123456789_");

    /// <summary>True for lower snake case segments joined by dots, the GGUF specification's spelling; other keys are read but never written.</summary>
    public static bool IsWellFormed(string key)
    {
        foreach (Range segment in key.AsSpan().Split('.'))
        {
            ReadOnlySpan<char> characters = key.AsSpan(segment);
            if (characters.IsEmpty || characters.ContainsAnyExcept(SegmentCharacters)) return false;
        }

        return true;
    }
}
