using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Pipeline.Checkpoints;

/// <summary>Which small files of a checkpoint folder are copied unchanged into every output folder.</summary>
internal static class CompanionFiles
{
    public static bool IsCompanion(string name) =>
        TokenizerFolder.FileNames.Contains(name)
        || name is "generation_config.json"
        || name.StartsWith("LICENSE", StringComparison.OrdinalIgnoreCase)
        || name.StartsWith("NOTICE", StringComparison.OrdinalIgnoreCase);
}
