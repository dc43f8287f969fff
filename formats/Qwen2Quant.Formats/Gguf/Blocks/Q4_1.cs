namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q4_1</c>: 32 values <c>q * d + m</c>, q of 4 bits.</summary>
internal readonly struct Q4_1 : INibbleFormat
{
    public static string Name => "Q4_1";
    public static int CodeBits => 4;
    public static bool HasMinimum => true;
}
