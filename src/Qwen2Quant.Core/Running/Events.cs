namespace Qwen2Quant.Core.Running;

/// <summary>Something a user must be able to know: a tolerance used, a type substituted, a fallback taken.</summary>
/// <param name="Code">Stable kebab-case name, for scripts.</param>
/// <param name="Message">One sentence.</param>
/// <param name="Tensor">Tensor concerned, if one is.</param>
/// <param name="IsSubstitution">True when the output differs from what was asked; <c>--strict</c> refuses it.</param>
/// <param name="IsWarning">True when the output is what was asked for and may yet disappoint.</param>
public sealed record QuantEvent(string Code, string Message, string? Tensor = null, bool IsSubstitution = false, bool IsWarning = false);

/// <summary>Receives events; implementations are thread-safe.</summary>
public interface IEventSink
{
    void Report(QuantEvent quantEvent);
}

/// <summary>Collects events in order of arrival.</summary>
public sealed class EventLog : IEventSink
{
    private readonly Lock _lock = new();
    private readonly List<QuantEvent> _events = [];

    public void Report(QuantEvent quantEvent)
    {
        lock (_lock) _events.Add(quantEvent);
    }

    public IReadOnlyList<QuantEvent> Events
    {
        get
        {
            lock (_lock) return [.. _events];
        }
    }
}

/// <summary>How a reader reads: its limits and where it reports tolerances that it used.</summary>
public sealed record ReadOptions
{
    public Limits Limits { get; init; } = Limits.Default;
    public IEventSink Events { get; init; } = new EventLog();
}
