using System.Buffers;
using System.Text.Unicode;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;

namespace Qwen2Quant.Validation;

/// <summary>
/// A text to measure on or to calibrate with. The characters are the file's own (no byte order mark removed, line ends kept),
/// except that one line feed at the very end is removed, as llama-perplexity's argument parser does.
/// </summary>
/// <param name="Name">The argument that it came from.</param>
/// <param name="Text">At least one character.</param>
public sealed record EvaluationText(string Name, string Text)
{
    /// <summary>The argument that means standard input.</summary>
    public const string StandardInput = "-";

    /// <summary>A string holds less than 2^30 characters; half of that leaves room for its tokens.</summary>
    private const int MaximumBytes = 1 << 29;

    /// <summary>Reads a TEXT argument: a UTF-8 file, <c>-</c> for <paramref name="standardInput"/>, or a name in <see cref="Corpora.Names"/>.</summary>
    /// <exception cref="QuantException">The text cannot be opened, is not UTF-8 (the offset of the first bad byte is given), is empty, or is too large.</exception>
    public static EvaluationText Load(IFileLayer files, string argument, Stream standardInput)
    {
        byte[] bytes = argument switch
        {
            StandardInput => ReadStream(standardInput),
            _ when argument.StartsWith(Corpora.Prefix, StringComparison.Ordinal) => Corpora.ReadBytes(argument),
            _ => ReadFile(files, argument),
        };
        string place = argument == StandardInput ? "standard input" : argument;
        string text = Decode(bytes, place);
        if (text.EndsWith('\n')) text = text[..^1];
        if (text.Length == 0)
        {
            throw new QuantException(ErrorKind.InvalidInput, "the text is empty") { Rule = ValidationRules.UsableText, Path = place };
        }

        return new EvaluationText(argument, text);
    }

    /// <summary>Strict UTF-8: nothing is replaced.</summary>
    internal static string Decode(ReadOnlySpan<byte> bytes, string place)
    {
        char[] characters = ArrayPool<char>.Shared.Rent(Math.Max(bytes.Length, 1));
        try
        {
            OperationStatus status = Utf8.ToUtf16(bytes, characters, out int bytesRead, out int written, replaceInvalidSequences: false);
            if (status == OperationStatus.Done) return new string(characters, 0, written);
            throw new QuantException(ErrorKind.InvalidInput, "the text is not valid UTF-8")
            {
                Rule = ValidationRules.UsableText,
                Path = place,
                ByteOffset = bytesRead,
                Found = TextEscape.Escape(bytes.Slice(bytesRead, Math.Min(4, bytes.Length - bytesRead))),
                Remedy = "Convert the text to UTF-8.",
            };
        }
        finally
        {
            ArrayPool<char>.Shared.Return(characters);
        }
    }

    private static byte[] ReadFile(IFileLayer files, string path)
    {
        if (files.DirectoryExists(path)) throw Refused(ErrorKind.InvalidInput, path, "cannot be opened: it is a folder", null);
        try
        {
            return files.ReadAllBytes(path, MaximumBytes);
        }
        catch (QuantException error) when (error.InnerException is not null)
        {
            throw Refused(error.Kind, path, error.Summary, error);
        }
    }

    private static QuantException Refused(ErrorKind kind, string path, string summary, QuantException? inner) => new(kind, $"the text {summary}", inner)
    {
        Rule = inner?.Rule,
        Path = path,
        ByteOffset = inner?.ByteOffset,
        Remedy = $"Give a UTF-8 file, '{StandardInput}' for standard input, or one of {string.Join(", ", Corpora.Names)}.",
    };

    private static byte[] ReadStream(Stream stream)
    {
        using MemoryStream collected = new();
        byte[] buffer = new byte[64 << 10];
        for (int read; (read = stream.Read(buffer)) > 0;)
        {
            if (collected.Length + read > MaximumBytes)
            {
                throw new QuantException(ErrorKind.Resource, "the text is too large")
                {
                    Path = "standard input",
                    Expected = $"at most {MaximumBytes} bytes",
                };
            }

            collected.Write(buffer, 0, read);
        }

        return collected.ToArray();
    }
}
