using System.Buffers;
using System.Globalization;
using System.Text.Json;

namespace Qwen2Quant.Model.Tokenization;

public sealed partial record TokenizerConfigJson
{
    /// <summary>Writes tokenizer_config.json for a tokenizer that came without one.</summary>
    /// <param name="longestText">Positions of the model, <c>model_max_length</c>.</param>
    public static void Write(TokenizerDefinition definition, int longestText, IBufferWriter<byte> output)
    {
        using Utf8JsonWriter writer = new(output, TokenizerJson.Indented);
        writer.WriteStartObject();
        if (definition.AddBos is { } addBos) writer.WriteBoolean("add_bos_token", addBos);
        if (definition.AddEos is { } addEos) writer.WriteBoolean("add_eos_token", addEos);
        writer.WriteBoolean("add_prefix_space", false);
        writer.WriteStartObject("added_tokens_decoder");
        foreach (AddedToken token in definition.AddedTokens)
        {
            writer.WriteStartObject(token.Id.ToString(CultureInfo.InvariantCulture));
            TokenizerJson.WriteAddedMembers(writer, token);
            writer.WriteEndObject();
        }

        writer.WriteEndObject();

        // Qwen2 puts nothing before a text: its bos id is in config.json alone
        WriteToken(writer, "bos_token", definition, definition.AddBos == true ? definition.BosId : null);
        WriteChatTemplates(writer, definition);
        writer.WriteBoolean("clean_up_tokenization_spaces", false);
        WriteToken(writer, "eos_token", definition, definition.EosId);
        writer.WriteString("errors", "replace");
        writer.WriteNumber("model_max_length", longestText);
        WriteToken(writer, "pad_token", definition, definition.PaddingId);
        writer.WriteBoolean("split_special_tokens", false);
        writer.WriteString("tokenizer_class", definition.PreTokenizer == PreTokenizers.Qwen2 ? "Qwen2Tokenizer" : "LlamaTokenizerFast");
        WriteToken(writer, "unk_token", definition, definition.UnknownId);
        writer.WriteEndObject();
    }

    private static void WriteToken(Utf8JsonWriter writer, string name, TokenizerDefinition definition, int? id)
    {
        if (id is { } known) writer.WriteString(name, definition.Vocabulary.Utf8(known));
        else writer.WriteNull(name);
    }

    private static void WriteChatTemplates(Utf8JsonWriter writer, TokenizerDefinition definition)
    {
        if (definition.NamedChatTemplates.Count == 0)
        {
            if (definition.ChatTemplate is not null) writer.WriteString("chat_template", definition.ChatTemplate);
            return;
        }

        writer.WriteStartArray("chat_template");
        if (definition.ChatTemplate is not null) WriteNamed("default", definition.ChatTemplate);
        foreach ((string name, string template) in definition.NamedChatTemplates) WriteNamed(name, template);
        writer.WriteEndArray();

        void WriteNamed(string name, string template)
        {
            writer.WriteStartObject();
            writer.WriteString("name", name);
            writer.WriteString("template", template);
            writer.WriteEndObject();
        }
    }
}
