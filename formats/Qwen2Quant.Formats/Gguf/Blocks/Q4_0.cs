namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q4_0</c>: 32 values <c>(q - 8) * d</c>, q of 4 bits.</summary>
internal sealed class Q4_0 : NibbleBlockType<Q4_0>, INibbleFormat
{
    public static Q4_0 Instance { get; } = new();

    public static int CodeBits => 4;
    public static bool HasMinimum => false;

    public override string Name => "Q4_0";
}
