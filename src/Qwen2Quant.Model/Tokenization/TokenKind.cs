namespace Qwen2Quant.Model.Tokenization;

/// <summary>What a token is, numbered as ggml's <c>llama_token_type</c> and GGUF's <c>tokenizer.ggml.token_type</c>.</summary>
public enum TokenKind
{
    /// <summary>An entry of the byte-level vocabulary, in byte-level spelling.</summary>
    Normal = 1,

    Unknown = 2,

    /// <summary>An added token that text may contain only where special tokens are parsed.</summary>
    Control = 3,

    /// <summary>An added token that is matched in all text.</summary>
    UserDefined = 4,

    /// <summary>A row of the embedding that no text produces.</summary>
    Unused = 5,

    Byte = 6,
}
