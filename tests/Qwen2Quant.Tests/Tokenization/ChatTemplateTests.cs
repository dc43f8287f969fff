using System.Text.Json;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Model.Chat;

namespace Qwen2Quant.Tests.Tokenization;

public class ChatTemplateTests
{
    private const string Turns =
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

    private static readonly ChatMessage[] Conversation =
    [
        new("user", "Hello"), new("assistant", "Hi.\nWhat now?"), new("user", "  Bye "),
    ];

    [Fact]
    public void Qwen2InsertsItsSystemMessage() => Assert.Equal(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
        ChatTemplate.Qwen2.Render([new("user", "Hello")], addGenerationPrompt: true));

    [Fact]
    public void Qwen25InsertsItsOwn() => Assert.Equal(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi.\nWhat now?<|im_end|>\n<|im_start|>user\n  Bye <|im_end|>\n",
        ChatTemplate.Qwen25.Render(Conversation, addGenerationPrompt: false));

    [Fact]
    public void AGivenSystemMessageStays()
    {
        ChatMessage[] messages = [new("system", "Be brief."), .. Conversation];
        const string Expected =
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi.\nWhat now?<|im_end|>\n<|im_start|>user\n  Bye <|im_end|>\n<|im_start|>assistant\n";
        Assert.All([ChatTemplate.Qwen2, ChatTemplate.Qwen25, ChatTemplate.Plain], template => Assert.Equal(Expected, template.Render(messages, addGenerationPrompt: true)));
    }

    [Fact]
    public void PlainChatMlInsertsNothing() => Assert.Equal(
        "<|im_start|>user\nHello<|im_end|>\n", ChatTemplate.Plain.Render([new("user", "Hello")], addGenerationPrompt: false));

    [Fact]
    public void ToolsAndNothingAreRefused()
    {
        Assert.Contains("tool", Assert.Throws<QuantException>(() => ChatTemplate.Qwen25.Render([new("tool", "{}")], true)).Message, StringComparison.Ordinal);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => ChatTemplate.Qwen2.Render([], true)).Kind);
    }

    [Fact]
    public void TheTemplateOfTheTinyModelIsQwen2s()
    {
        using JsonDocument config = JsonDocument.Parse(TokenizerData.Read("tiny/tokenizer_config.json"));
        Assert.Same(ChatTemplate.Qwen2, ChatTemplate.Recognize(config.RootElement.GetProperty("chat_template").GetString()!));
    }

    [Theory]
    [InlineData(Turns)]
    [InlineData("{%- for message in messages -%}\n  {{- \"<|im_start|>\" + message.role + \"\\n\" }}{{ message.content }}{{- '<|im_end|>\n' -}}\n{%- endfor -%}\n{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}")]
    [InlineData("{# ChatML #}{% for message in messages %}<|im_start|>{{ message['role'] }}\n\n{{ message['content'] }}<|im_end|>\n{% endfor %}\n{% if add_generation_prompt %}\n<|im_start|>assistant\n\n{% endif %}", false)]
    public void SpellingDoesNotMatter(string template, bool known = true) =>
        Assert.Equal(known ? ChatTemplate.Plain : null, ChatTemplate.Recognize(template));

    [Fact]
    public void LiteralTextCountsAsPrinted() => Assert.Same(ChatTemplate.Plain, ChatTemplate.Recognize(
        "{% for message in messages %}\n<|im_start|>{{ message['role'] }}{{ '\\n' }}{{ message['content'] }}<|im_end|>\n    {% endfor %}\n    {% if add_generation_prompt %}<|im_start|>assistant\n{{ '' }}{% endif %}\n"));

    [Fact]
    public void ADefaultSystemOfItsOwnIsKept()
    {
        string template = Turns.Replace("%}{{'", "%}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nI am \"X\".<|im_end|>\\n' }}{% endif %}{{'", StringComparison.Ordinal);
        ChatTemplate? found = ChatTemplate.Recognize(template);
        Assert.Equal("I am \"X\".", found?.DefaultSystem);
        Assert.StartsWith("<|im_start|>system\nI am \"X\".<|im_end|>\n<|im_start|>user\n", found!.Render(Conversation, true), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{% for message in messages %}[INST] {{ message['content'] }}{% endfor %}", "Mistral")]
    [InlineData("{{ '<|start_header_id|>' }}", "Llama 3")]
    [InlineData("{{ message }}", "unknown template")]
    [InlineData("{{ '<|im_start|>", "ChatML")]
    public void OthersAreNamedNotGuessed(string template, string name)
    {
        Assert.Null(ChatTemplate.Recognize(template));
        Assert.Contains(name, ChatTemplate.Describe(template), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("message['role']", "message['content']")]
    [InlineData("<|im_end|>", "<|end|>")]
    [InlineData("assistant\\n", "assistant")]
    [InlineData("messages %}", "messages[1:] %}")]
    [InlineData("message['content']", "message['content'] | trim")]
    public void AChangeOfMeaningIsNotRecognized(string from, string to) =>
        Assert.Null(ChatTemplate.Recognize(Turns.Replace(from, to, StringComparison.Ordinal)));
}
