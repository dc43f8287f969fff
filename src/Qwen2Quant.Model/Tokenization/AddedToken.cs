namespace Qwen2Quant.Model.Tokenization;

/// <summary>A token in plain spelling that is matched before the byte-level vocabulary.</summary>
/// <param name="IsSpecial">Hugging Face's <c>special</c>.</param>
/// <param name="IsNormalized">Matched after normalization instead of before.</param>
public sealed record AddedToken(int Id, string Content, bool IsSpecial, bool IsNormalized = false)
{
    /// <summary>Control when special or spelled <c>&lt;|…|&gt;</c>, user-defined otherwise (llama.cpp's converter).</summary>
    public TokenKind Kind => IsSpecial || LooksLikeControl ? TokenKind.Control : TokenKind.UserDefined;

    private bool LooksLikeControl => Content.StartsWith("<|", StringComparison.Ordinal) && Content.EndsWith("|>", StringComparison.Ordinal) && Content.Length > 4;
}
