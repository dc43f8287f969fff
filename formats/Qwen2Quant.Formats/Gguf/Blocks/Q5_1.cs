namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q5_1</c>: 32 values <c>q * d + m</c>, q of 5 bits.</summary>
internal sealed class Q5_1 : NibbleBlockType<Q5_1>, INibbleFormat
{
    public static Q5_1 Instance { get; } = new();

    public static int CodeBits => 5;
    public static bool HasMinimum => true;

    public override string Name => "Q5_1";
}
