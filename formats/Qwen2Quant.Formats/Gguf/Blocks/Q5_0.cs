namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>ggml's <c>block_q5_0</c>: 32 values <c>(q - 16) * d</c>, q of 5 bits.</summary>
internal sealed class Q5_0 : NibbleBlockType<Q5_0>, INibbleFormat
{
    public static Q5_0 Instance { get; } = new();

    public static int CodeBits => 5;
    public static bool HasMinimum => false;

    public override string Name => "Q5_0";
}
