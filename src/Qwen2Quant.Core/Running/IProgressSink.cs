namespace Qwen2Quant.Core.Running;

/// <summary>Is told how far a long task is; implementations are thread-safe and return at once.</summary>
public interface IProgressSink
{
    /// <summary>Starts a task. <paramref name="unit"/> is <c>B</c> for bytes or the name of what is counted, such as <c>tokens</c>.</summary>
    IProgressTask Start(string title, long total, string unit);
}

/// <summary>One task in progress; disposing it ends it.</summary>
public interface IProgressTask : IDisposable
{
    void Advance(long amount);
}

/// <summary>Shows nothing.</summary>
public sealed class NoProgress : IProgressSink, IProgressTask
{
    public static NoProgress Instance { get; } = new();

    public IProgressTask Start(string title, long total, string unit) => this;

    public void Advance(long amount)
    {
    }

    public void Dispose()
    {
    }
}
