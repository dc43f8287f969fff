namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q4_1</c>: 32 values <c>q * d + m</c>, q of 4 bits.</summary>
internal sealed class Q4_1 : NibbleBlockType<Q4_1>, INibbleFormat
{
    public static Q4_1 Instance { get; } = new();

    public static int CodeBits => 4;
    public static bool HasMinimum => true;

    public override string Name => "Q4_1";
}
