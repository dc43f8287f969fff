using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>What makes a file an importance matrix; the rules of a GGUF file hold besides for those that are one.</summary>
public static class ImatrixRules
{
    public static readonly Rule Layout = new("IM-121", "an importance matrix is GGUF of type imatrix or the older format, every sum with its counts, every length within the file");

    public static IReadOnlyList<Rule> All { get; } = [Layout];
}
