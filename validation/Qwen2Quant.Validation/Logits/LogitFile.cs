using System.Globalization;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Validation;

/// <summary>llama-perplexity's base file, opened for reading: the tokens in memory, records read as they are asked for.</summary>
public sealed class LogitFile : IDisposable
{
    /// <summary>Bytes of records that are read or written at a time; one record at least.</summary>
    public const int BufferBytes = 16 << 20;

    private const string Remedy = "Leave out --data, or give the text and the model that the file was made with.";

    private readonly IReadFile _file;
    private readonly int[] _tokens;

    private LogitFile(IReadFile file, LogitFileLayout layout, int[] tokens)
    {
        _file = file;
        _tokens = tokens;
        Layout = layout;
    }

    public string Path => _file.Path;

    public LogitFileLayout Layout { get; }

    /// <summary>The tokens of one window, as the text has them.</summary>
    public ReadOnlySpan<int> Tokens(int chunk) => _tokens.AsSpan(chunk * Layout.Context, Layout.Context);

    /// <summary>Opens a file and checks its header, its length and its tokens.</summary>
    /// <exception cref="QuantException">The file cannot be opened; LG-1: it is no such file, or not whole.</exception>
    public static LogitFile Open(IFileLayer files, string path)
    {
        IReadFile file = files.OpenTyped(path);
        try
        {
            LogitFileLayout layout = ReadLayout(file);
            int[] tokens = new int[layout.TokenCount];
            file.ReadExactly(LogitFileLayout.PrefixBytes, MemoryMarshal.AsBytes(tokens.AsSpan()));
            int wrong = Array.FindIndex(tokens, token => (uint)token >= (uint)layout.VocabularySize);
            if (wrong >= 0) throw NotWhole(file, "a token lies outside the vocabulary", tokens[wrong], $"0 to {layout.VocabularySize - 1}", LogitFileLayout.PrefixBytes + ((long)sizeof(int) * wrong));
            return new LogitFile(file, layout, tokens);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>The windows that <paramref name="options"/> take of those in the file.</summary>
    /// <exception cref="QuantException">Usage: the positions asked for are not in the file. LG-2: its windows have another length. NU-96: one position only.</exception>
    public WindowPlan Plan(WindowOptions options)
    {
        if (options.Protocol != ScoringProtocol.Llama)
        {
            throw new QuantException(ErrorKind.Usage, "a logit file holds the second half of each window") { Path = Path, Found = "--protocol full", Remedy = "Leave out --protocol." };
        }

        if (options.Context != Layout.Context) throw Another("the windows of the file have another length", $"{Layout.Context} tokens", $"--context {options.Context}", "Leave out --context.");
        return WindowPlan.OfWindows(_tokens, options, Path);
    }

    /// <summary>Bytes that a comparison over the windows of <paramref name="plan"/> keeps of the file.</summary>
    public long HeldBytes(WindowPlan plan) => LogitFileRows.HeldBytes(Layout, plan) + (sizeof(int) * Layout.TokenCount);

    /// <exception cref="QuantException">LG-2: a model has a vocabulary of another size.</exception>
    public void RequireVocabulary(int vocabularySize)
    {
        if (Layout.VocabularySize == vocabularySize) return;
        throw Another(
            "the file has a vocabulary of another size than the model",
            Layout.VocabularySize.ToString(CultureInfo.InvariantCulture),
            vocabularySize.ToString(CultureInfo.InvariantCulture),
            "Give a conversion of the model that the file was made with.");
    }

    /// <summary>Refuses a file whose windows are not those of a text, counted from its start or spread evenly over it.</summary>
    /// <param name="tokens">The whole text, tokenized once.</param>
    /// <exception cref="QuantException">LG-2; NU-96: the text is shorter than two windows.</exception>
    public void RequireTokensOf(int[] tokens, string textName)
    {
        QuantException? first = Difference(WindowSampling.First);
        if (first is not null && Difference(WindowSampling.Spread) is not null) throw first;

        QuantException? Difference(WindowSampling sampling)
        {
            WindowPlan plan = WindowPlan.Create(tokens, new WindowOptions { Context = Layout.Context, Chunks = Layout.ChunkCount, Sampling = sampling }, textName);
            if (plan.WindowCount < Layout.ChunkCount) return Another("the file has more windows than the text", $"{Layout.ChunkCount} windows", $"{plan.WindowCount}, as {textName} has", Remedy);
            for (int window = 0; window < plan.WindowCount; window++)
            {
                int same = plan.Tokens(window).CommonPrefixLength(Tokens(window));
                if (same < Layout.Context) return Another("the file holds other tokens than the text", $"token {Tokens(window)[same]} at window {window}, position {same}", $"{plan.Tokens(window)[same]}, as {textName} has", Remedy);
            }

            return null;
        }
    }

    /// <summary>Reads the records of <paramref name="recordCount"/> positions of one window.</summary>
    internal void Read(int chunk, int firstPosition, int recordCount, Span<byte> records) =>
        _file.ReadExactly(Layout.RecordOffset(chunk, firstPosition), records[..checked((int)(recordCount * Layout.RecordBytes))]);

    /// <summary>The error of a file that belongs to something else (LG-2).</summary>
    public QuantException Another(string summary, string found, string expected, string remedy) =>
        new(ErrorKind.InvalidInput, summary) { Rule = LogitRules.Belongs, Path = Path, Found = found, Expected = expected, Remedy = remedy };

    public void Dispose() => _file.Dispose();

    private static LogitFileLayout ReadLayout(IReadFile file)
    {
        byte[] prefix = new byte[Math.Min(LogitFileLayout.PrefixBytes, file.Length)];
        file.ReadExactly(0, prefix);
        if (!prefix.AsSpan().StartsWith(LogitFileLayout.Magic[..Math.Min(LogitFileLayout.Magic.Length, prefix.Length)]) || prefix.Length == 0)
        {
            throw NotWhole(file, "no file of logits", prefix.Length == 0 ? "nothing" : TextEscape.Escape(prefix.AsSpan(0, Math.Min(prefix.Length, LogitFileLayout.Magic.Length))), "'_logits_', as llama-perplexity --kl-divergence-base and --save-logits write", 0);
        }

        if (prefix.Length < LogitFileLayout.PrefixBytes) throw CutShort(file, LogitFileLayout.PrefixBytes);
        LogitFileLayout layout = LogitFileLayout.Parse(prefix);
        if (layout.Context < LogitFileLayout.SmallestContext) throw NotWhole(file, "the context is out of range", layout.Context, $"at least {LogitFileLayout.SmallestContext}", LogitFileLayout.ContextOffset);
        if (layout.VocabularySize < 1) throw NotWhole(file, "the size of the vocabulary is out of range", layout.VocabularySize, "at least 1", LogitFileLayout.VocabularyOffset);
        if (layout.ChunkCount < 1) throw NotWhole(file, "the number of chunks is out of range", layout.ChunkCount, "at least 1", LogitFileLayout.ChunkOffset);
        if (file.Length < layout.ByteLength) throw CutShort(file, layout.ByteLength);
        if (file.Length > layout.ByteLength) throw NotWhole(file, "the file is longer than its header says", $"{file.Length} bytes", $"{layout.ByteLength}", layout.ByteLength);
        if (layout.TokenCount > Array.MaxLength) throw NotWhole(file, "the file has too many tokens", layout.TokenCount, $"at most {Array.MaxLength}", LogitFileLayout.ChunkOffset);
        return layout;
    }

    private static QuantException CutShort(IReadFile file, long expected) => NotWhole(file, "the file is cut short", $"{file.Length} bytes", $"{expected}", file.Length);

    private static QuantException NotWhole(IReadFile file, string summary, IConvertible found, string expected, long byteOffset) => new(ErrorKind.InvalidInput, summary)
    {
        Rule = LogitRules.Whole,
        Path = file.Path,
        ByteOffset = byteOffset,
        Found = found.ToString(CultureInfo.InvariantCulture),
        Expected = expected,
        Remedy = "Make the file again: qwen2quant perplexity MODEL --data TEXT --save-logits FILE.",
    };
}
