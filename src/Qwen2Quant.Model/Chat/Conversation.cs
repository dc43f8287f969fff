using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Model.Chat;

/// <summary>
/// A conversation as tokens: those of <see cref="ChatTemplate.Render"/>, except that answers keep the tokens that were generated, which another
/// cut of the same text might not be, and so stay in the cache. The template's own marks are tokens always, marks spelled in a message only
/// where that is asked for.
/// </summary>
public sealed class Conversation
{
    private readonly ITokenizer _tokenizer;
    private readonly bool _parseSpecial;
    private readonly int[] _head;
    private readonly List<List<int>> _exchanges = [];

    /// <param name="system">System message; null takes the template's own, where it has one.</param>
    /// <param name="parseSpecial">Control tokens spelled in messages become tokens.</param>
    public Conversation(ChatTemplate template, ITokenizer tokenizer, string? system, bool parseSpecial)
    {
        _tokenizer = tokenizer;
        _parseSpecial = parseSpecial;
        List<int> head = [];
        if (tokenizer.LeadingId is { } leading) head.Add(leading);
        if ((system ?? template.DefaultSystem) is { } message) AddTurn(head, ChatMessage.System, message);
        _head = [.. head];
    }

    /// <summary>Questions so far that are not left out.</summary>
    public int ExchangeCount => _exchanges.Count;

    /// <summary>Adds a message of the user and the opening of the answer.</summary>
    public void Ask(string message)
    {
        List<int> exchange = [];
        AddTurn(exchange, ChatMessage.User, message);
        Mark(exchange, ChatTemplate.TurnStart);
        exchange.AddRange(_tokenizer.Encode(ChatMessage.Assistant + "\n", parseSpecial: false));
        _exchanges.Add(exchange);
    }

    /// <summary>Adds the tokens of the answer to the last message, without the token that ended it.</summary>
    public void Answer(IEnumerable<int> tokens)
    {
        _exchanges[^1].AddRange(tokens);
        Close(_exchanges[^1]);
    }

    /// <summary>Leaves out the oldest message and its answer; false when only one is left.</summary>
    public bool DropOldest()
    {
        if (_exchanges.Count < 2) return false;
        _exchanges.RemoveAt(0);
        return true;
    }

    /// <summary>Takes the last message back.</summary>
    public void Retract() => _exchanges.RemoveAt(_exchanges.Count - 1);

    /// <summary>Begins anew; the system message stays.</summary>
    public void Reset() => _exchanges.Clear();

    /// <summary>All tokens, to be continued.</summary>
    public int[] Tokens() => [.. _head, .. _exchanges.SelectMany(exchange => exchange)];

    private void AddTurn(List<int> tokens, string role, string content)
    {
        Mark(tokens, ChatTemplate.TurnStart);
        tokens.AddRange(_tokenizer.Encode($"{role}\n{content}", _parseSpecial));
        Close(tokens);
    }

    private void Close(List<int> tokens)
    {
        Mark(tokens, ChatTemplate.TurnEnd);
        tokens.AddRange(_tokenizer.Encode("\n", parseSpecial: false));
    }

    private void Mark(List<int> tokens, string mark)
    {
        // A vocabulary without the mark spells it.
        if (_tokenizer.FindAdded(mark) is { } id) tokens.Add(id);
        else tokens.AddRange(_tokenizer.Encode(mark, parseSpecial: false));
    }
}
