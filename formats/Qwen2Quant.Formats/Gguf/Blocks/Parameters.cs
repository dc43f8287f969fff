namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>What parameters of blocks can be, and where they act.</summary>
internal static class Parameters
{
    /// <summary>All sub-blocks.</summary>
    public static (int First, int Count) OfBlock => (-1, 0);

    public static float Integer(float value, int least, int greatest) => Math.Clamp(MathF.Round(value), least, greatest);

    /// <summary>Halves that are not negative.</summary>
    public static float Scale(float value) => StoredHalf.Round(MathF.Max(value, 0));
}
