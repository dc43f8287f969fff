namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q5_0</c>: 32 values <c>(q - 16) * d</c>, q of 5 bits.</summary>
internal readonly struct Q5_0 : INibbleFormat
{
    public static string Name => "Q5_0";
    public static int CodeBits => 5;
    public static bool HasMinimum => false;
}
