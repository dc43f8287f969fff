using System.Text;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Model.Chat;

namespace Qwen2Quant.Cli.Generation;

/// <summary>A conversation over standard input: a line is a message, and its answer is written; until the end of the input or <c>/exit</c>.</summary>
internal sealed class ChatLoop(Session session, AnswerWriter writer, Conversation conversation)
{
    private const string Hint = "Type a message; \\ at the end of a line goes on in the next. /reset begins anew, /exit or Ctrl-D ends, Ctrl-C stops an answer.";

    private readonly bool _isInteractive = !Console.IsInputRedirected && !session.Quiet;
    private CancellationTokenSource? _answer;

    public ChatResult Run()
    {
        List<GenerateResult> answers = [];
        session.ShowEvents();
        if (_isInteractive) session.Error.WriteLine(Hint);
        session.Interruption.Intercept = StopAnswer;
        try
        {
            while (ReadMessage() is { } message)
            {
                if (message == "/exit") break;
                if (message == "/reset") conversation.Reset();
                else if (!string.IsNullOrWhiteSpace(message)) AnswerTo(message, answers);
            }
        }
        finally
        {
            session.Interruption.Intercept = null;
        }

        return new ChatResult(answers, session.Context.Events.Events);
    }

    private void AnswerTo(string message, List<GenerateResult> answers)
    {
        conversation.Ask(message);
        try
        {
            answers.Add(Answer() with { Prompt = message });
        }
        catch (QuantException failure) when (_isInteractive && failure.Kind == ErrorKind.Usage)
        {
            conversation.Retract();
            session.Error.WriteLine($"error: {failure.Message}");
        }
    }

    private GenerateResult Answer()
    {
        CancellationToken run = session.Context.Cancellation;
        int[] prompt = Fit();
        using CancellationTokenSource answer = CancellationTokenSource.CreateLinkedTokenSource(run);
        Volatile.Write(ref _answer, answer);
        GenerateResult result;
        try
        {
            result = writer.Write(prompt, answer.Token);
        }
        finally
        {
            Volatile.Write(ref _answer, null);
        }

        conversation.Answer(result.Tokens);
        if (!session.Json) session.Out.WriteLine();
        session.ShowEvents();
        run.ThrowIfCancellationRequested();
        if (!session.Quiet && result.StopReason != "stop_token") session.Error.WriteLine($"note: the answer ended by {result.StopReason}");
        return result;
    }

    /// <summary>The conversation without as many of its oldest messages as it takes to leave room for an answer.</summary>
    private int[] Fit()
    {
        int capacity = writer.Generator.Capacity;
        // A quarter of the context, unless answers are shorter than that.
        int room = Math.Min(writer.MaxTokens ?? capacity, capacity / 4);
        int dropped = 0;
        int[] tokens;
        while ((tokens = conversation.Tokens()).Length + room > capacity && conversation.DropOldest()) dropped++;
        if (tokens.Length > capacity)
        {
            throw new QuantException(ErrorKind.Usage, "the message does not fit in the context")
            {
                Found = $"{tokens.Length} tokens",
                Expected = $"at most {capacity}",
                Remedy = "Shorten it, or start with a larger --context.",
            };
        }

        if (dropped > 0) session.Context.Events.Report(new QuantEvent("context-full", $"the context of {capacity} tokens is full: the oldest {dropped} of the messages, with their answers, are left out"));
        return tokens;
    }

    /// <summary>A message, or null at the end of the input.</summary>
    private string? ReadMessage()
    {
        StringBuilder message = new();
        string mark = "> ";
        while (ReadLine(mark) is { } line)
        {
            if (!line.EndsWith('\\')) return message.Append(line).ToString();
            message.Append(line, 0, line.Length - 1).Append('\n');
            mark = ". ";
        }

        return message.Length > 0 ? message.ToString() : null;
    }

    /// <summary>Reads on another thread, so that a signal ends the wait.</summary>
    private string? ReadLine(string mark)
    {
        CancellationToken cancellation = session.Context.Cancellation;
        cancellation.ThrowIfCancellationRequested();
        if (_isInteractive) session.Error.Write(mark);
        Task<string?> line = Task.Run(Console.In.ReadLine);
        line.Wait(cancellation);
        return line.GetAwaiter().GetResult();
    }

    /// <summary>True when an answer was being written and had not been told to stop.</summary>
    private bool StopAnswer()
    {
        if (Volatile.Read(ref _answer) is not { IsCancellationRequested: false } answer) return false;
        try
        {
            answer.Cancel();
            return true;
        }
        catch (ObjectDisposedException)
        {
            return false;
        }
    }
}
