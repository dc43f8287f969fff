using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Core.Files;

/// <summary>What a path must lead to before it is read.</summary>
public static class FileRules
{
    public static readonly Rule RegularFiles = new("HF-76", "inputs are regular files with usable names");

    public static IReadOnlyList<Rule> All { get; } = [RegularFiles];
}
