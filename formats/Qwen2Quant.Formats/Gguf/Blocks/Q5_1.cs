namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q5_1</c>: 32 values <c>q * d + m</c>, q of 5 bits.</summary>
internal readonly struct Q5_1 : INibbleFormat
{
    public static string Name => "Q5_1";
    public static int CodeBits => 5;
    public static bool HasMinimum => true;
}
