using System.Text;

namespace Qwen2Quant.Model.Tokenization;

/// <summary>
/// Text of tokens as they come. A character whose bytes are spread over tokens appears once it is whole;
/// all that comes out together equals <see cref="ITokenizer.Decode"/> of all ids. Not thread-safe.
/// </summary>
public sealed class StreamingDecoder(ITokenizer tokenizer, bool skipControl = false)
{
    private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();

    /// <summary>The text that is certain after this token, perhaps empty.</summary>
    public string Push(int id) =>
        skipControl && tokenizer.Kind(id) is (TokenKind.Control or TokenKind.Unknown) ? "" : Decode(tokenizer.PieceBytes(id), flush: false);

    /// <summary>Ends the text: U+FFFD if a character was left unfinished.</summary>
    public string Finish() => Decode([], flush: true);

    private string Decode(ReadOnlySpan<byte> bytes, bool flush)
    {
        int count = _decoder.GetCharCount(bytes, flush);
        char[] characters = new char[count];
        _decoder.GetChars(bytes, characters, flush);
        return new string(characters);
    }
}
