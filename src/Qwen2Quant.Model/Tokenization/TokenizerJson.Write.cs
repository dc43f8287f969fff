using System.Buffers;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Qwen2Quant.Model.Tokenization;

public static partial class TokenizerJson
{
    private static readonly JsonWriterOptions Compact = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Indented options of the small files, as Hugging Face writes them.</summary>
    internal static readonly JsonWriterOptions Indented = Compact with { Indented = true };

    /// <summary>Writes tokenizer.json. Padding after the last used token is left out; merges are written as strings.</summary>
    public static void Write(TokenizerDefinition definition, IBufferWriter<byte> output)
    {
        using Utf8JsonWriter writer = new(output, Compact);
        writer.WriteStartObject();
        writer.WriteString("version", "1.0");
        writer.WriteNull("truncation");
        writer.WriteNull("padding");
        writer.WriteStartArray("added_tokens");
        foreach (AddedToken token in definition.AddedTokens)
        {
            writer.WriteStartObject();
            writer.WriteNumber("id", token.Id);
            WriteAddedMembers(writer, token);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
        if (definition.NormalizesToNfc)
        {
            writer.WriteStartObject("normalizer");
            writer.WriteString("type", "NFC");
            writer.WriteEndObject();
        }
        else
        {
            writer.WriteNull("normalizer");
        }

        WritePreTokenizer(writer);
        WritePostProcessor(writer, definition);
        WriteByteLevel(writer, "decoder");
        WriteModel(writer, definition);
        writer.WriteEndObject();
    }

    /// <summary>Writes <c>{"token": id, …}</c> of the vocabulary without added tokens, in id order.</summary>
    internal static void WriteVocabulary(Utf8JsonWriter writer, TokenizerDefinition definition)
    {
        HashSet<int> added = [.. definition.AddedTokens.Select(token => token.Id)];
        int used = definition.Vocabulary.UsedCount;
        for (int id = 0; id < used; id++)
        {
            if (!added.Contains(id)) writer.WriteNumber(definition.Vocabulary.Utf8(id), id);
        }
    }

    internal static void WriteAddedMembers(Utf8JsonWriter writer, AddedToken token)
    {
        writer.WriteString("content", token.Content);
        writer.WriteBoolean("single_word", false);
        writer.WriteBoolean("lstrip", false);
        writer.WriteBoolean("rstrip", false);
        writer.WriteBoolean("normalized", token.IsNormalized);
        writer.WriteBoolean("special", token.IsSpecial);
    }

    private static void WritePreTokenizer(Utf8JsonWriter writer)
    {
        writer.WriteStartObject("pre_tokenizer");
        writer.WriteString("type", "Sequence");
        writer.WriteStartArray("pretokenizers");
        writer.WriteStartObject();
        writer.WriteString("type", "Split");
        writer.WriteStartObject("pattern");
        writer.WriteString("Regex", PreTokenizers.Qwen2Expression);
        writer.WriteEndObject();
        writer.WriteString("behavior", "Isolated");
        writer.WriteBoolean("invert", false);
        writer.WriteEndObject();
        WriteByteLevel(writer, null);
        writer.WriteEndArray();
        writer.WriteEndObject();
    }

    private static void WritePostProcessor(Utf8JsonWriter writer, TokenizerDefinition definition)
    {
        if (definition is not { AddBos: true, BosId: { } bos })
        {
            WriteByteLevel(writer, "post_processor");
            return;
        }

        string text = definition.Vocabulary.Text(bos);
        writer.WriteStartObject("post_processor");
        writer.WriteString("type", "TemplateProcessing");
        writer.WriteStartArray("single");
        WriteSpecialPiece(writer, text, 0);
        WriteSequencePiece(writer, "A", 0);
        writer.WriteEndArray();
        writer.WriteStartArray("pair");
        WriteSpecialPiece(writer, text, 0);
        WriteSequencePiece(writer, "A", 0);
        WriteSpecialPiece(writer, text, 1);
        WriteSequencePiece(writer, "B", 1);
        writer.WriteEndArray();
        writer.WriteStartObject("special_tokens");
        writer.WriteStartObject(text);
        writer.WriteString("id", text);
        writer.WriteStartArray("ids");
        writer.WriteNumberValue(bos);
        writer.WriteEndArray();
        writer.WriteStartArray("tokens");
        writer.WriteStringValue(text);
        writer.WriteEndArray();
        writer.WriteEndObject();
        writer.WriteEndObject();
        writer.WriteEndObject();
    }

    private static void WriteSpecialPiece(Utf8JsonWriter writer, string token, int typeId) => WritePiece(writer, "SpecialToken", token, typeId);

    private static void WriteSequencePiece(Utf8JsonWriter writer, string sequence, int typeId) => WritePiece(writer, "Sequence", sequence, typeId);

    private static void WritePiece(Utf8JsonWriter writer, string kind, string id, int typeId)
    {
        writer.WriteStartObject();
        writer.WriteStartObject(kind);
        writer.WriteString("id", id);
        writer.WriteNumber("type_id", typeId);
        writer.WriteEndObject();
        writer.WriteEndObject();
    }

    private static void WriteByteLevel(Utf8JsonWriter writer, string? name)
    {
        if (name is null) writer.WriteStartObject();
        else writer.WriteStartObject(name);
        writer.WriteString("type", "ByteLevel");
        writer.WriteBoolean("add_prefix_space", false);
        writer.WriteBoolean("trim_offsets", false);
        writer.WriteBoolean("use_regex", false);
        writer.WriteEndObject();
    }

    private static void WriteModel(Utf8JsonWriter writer, TokenizerDefinition definition)
    {
        writer.WriteStartObject("model");
        writer.WriteString("type", "BPE");
        writer.WriteNull("dropout");
        writer.WriteNull("unk_token");
        writer.WriteString("continuing_subword_prefix", "");
        writer.WriteString("end_of_word_suffix", "");
        writer.WriteBoolean("fuse_unk", false);
        writer.WriteBoolean("byte_fallback", false);
        writer.WriteStartObject("vocab");
        WriteVocabulary(writer, definition);
        writer.WriteEndObject();
        writer.WriteStartArray("merges");
        for (int rank = 0; rank < definition.Merges.Count; rank++) writer.WriteStringValue(definition.Merges.Text(rank));
        writer.WriteEndArray();
        writer.WriteEndObject();
    }
}
