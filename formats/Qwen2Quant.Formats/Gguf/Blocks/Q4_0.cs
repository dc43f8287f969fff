namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q4_0</c>: 32 values <c>(q - 8) * d</c>, q of 4 bits.</summary>
internal readonly struct Q4_0 : INibbleFormat
{
    public static string Name => "Q4_0";
    public static int CodeBits => 4;
    public static bool HasMinimum => false;
}
