using System.Text;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Model.Chat;

/// <summary>
/// A chat format of the ChatML family: each turn is <c>&lt;|im_start|&gt;role\ncontent&lt;|im_end|&gt;\n</c>.
/// Jinja is not run: a template is recognized as one of the known ones, or not at all.
/// </summary>
public sealed record ChatTemplate
{
    /// <summary>ChatML that inserts nothing.</summary>
    public static ChatTemplate Plain { get; } = new("ChatML", null);

    /// <summary>Qwen2's.</summary>
    public static ChatTemplate Qwen2 { get; } = new("Qwen2", "You are a helpful assistant.");

    /// <summary>Qwen2.5's; its tools are not rendered.</summary>
    public static ChatTemplate Qwen25 { get; } = new("Qwen2.5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.");

    /// <summary>Opens a turn; its role follows.</summary>
    public const string TurnStart = "<|im_start|>";

    /// <summary>Closes a turn, and ends an answer.</summary>
    public const string TurnEnd = "<|im_end|>";

    private ChatTemplate(string name, string? defaultSystem)
    {
        Name = name;
        DefaultSystem = defaultSystem;
    }

    public string Name { get; }

    /// <summary>The system message of a conversation that begins with none; null: there is none.</summary>
    public string? DefaultSystem { get; }

    /// <summary>The known template that a Jinja text is, whatever its quotes, spaces and default system message; null for any other.</summary>
    public static ChatTemplate? Recognize(string jinjaTemplate)
    {
        IReadOnlyList<TemplateItem>? form = TemplateForm.TryRead(jinjaTemplate);
        if (form is null) return null;
        foreach (IReadOnlyList<TemplateItem> known in KnownTemplates.Forms)
        {
            if (!TemplateForm.Match(known, form, out string? system)) continue;
            if (system is null) return Plain;
            return new[] { Qwen2, Qwen25 }.FirstOrDefault(template => template.DefaultSystem == system)
                ?? new ChatTemplate("ChatML with a system message of its own", system);
        }

        return null;
    }

    /// <summary>What a template is called that <see cref="Recognize"/> does not know, for the message that refuses it.</summary>
    public static string Describe(string jinjaTemplate)
    {
        foreach ((string mark, string name) in KnownTemplates.ForeignMarks)
        {
            if (jinjaTemplate.Contains(mark, StringComparison.Ordinal)) return name;
        }

        return "an unknown template";
    }

    /// <summary>The text of a conversation, to be tokenized with special tokens parsed.</summary>
    /// <param name="messages">At least one turn; tool calls and tool results are refused.</param>
    /// <param name="addGenerationPrompt">Ends with the opening of the assistant's turn.</param>
    /// <exception cref="QuantException">No message, or a role that is not rendered.</exception>
    public string Render(IReadOnlyList<ChatMessage> messages, bool addGenerationPrompt)
    {
        if (messages.Count == 0) throw new QuantException(ErrorKind.Usage, "a conversation needs at least one message");
        StringBuilder text = new();
        if (DefaultSystem is not null && messages[0].Role != ChatMessage.System) Append(text, ChatMessage.System, DefaultSystem);
        foreach (ChatMessage message in messages)
        {
            if (message.Role is not (ChatMessage.System or ChatMessage.User or ChatMessage.Assistant))
            {
                throw new QuantException(ErrorKind.Usage, $"the chat template {Name} is not rendered for this role")
                {
                    Found = message.Role,
                    Expected = "system, user or assistant",
                    Remedy = "Tools are not supported: pass the conversation without tool turns.",
                };
            }

            Append(text, message.Role, message.Content);
        }

        if (addGenerationPrompt) text.Append(TurnStart).Append(ChatMessage.Assistant).Append('\n');
        return text.ToString();
    }

    private static void Append(StringBuilder text, string role, string content) =>
        text.Append(TurnStart).Append(role).Append('\n').Append(content).Append(TurnEnd).Append('\n');
}
