using System.Diagnostics;
using Qwen2Quant.Core.Running;
using Spectre.Console;

namespace Qwen2Quant.Cli.Output;

/// <summary>Progress on standard error: a bar on a terminal, a line every ten seconds otherwise.</summary>
internal static class ProgressDisplay
{
    public static IProgressSink Create(TextWriter error, bool redirected, bool useColor) => redirected ? new LineProgress(error) : new BarProgress(error, useColor);

    private static string Describe(string title, long done, long total, string unit, TimeSpan elapsed)
    {
        double rate = done / Math.Max(elapsed.TotalSeconds, 1e-3);
        string amounts = unit == "B" ? $"{Format.Bytes(done)} of {Format.Bytes(total)}, {Format.Bytes((long)rate)}/s" : $"{done} of {total} {unit}, {rate:0} {unit}/s";
        string left = done > 0 && done < total ? $", {Format.Duration(TimeSpan.FromSeconds((total - done) / rate))} left" : "";
        return $"{title}: {amounts}{left}";
    }

    private sealed class LineProgress(TextWriter error) : IProgressSink
    {
        private static readonly TimeSpan Interval = TimeSpan.FromSeconds(10);

        public IProgressTask Start(string title, long total, string unit) => new Line(error, title, total, unit);

        private sealed class Line(TextWriter error, string title, long total, string unit) : IProgressTask
        {
            private readonly Stopwatch _watch = Stopwatch.StartNew();
            private readonly Lock _lock = new();
            private long _done;
            private TimeSpan _next = Interval;

            public void Advance(long amount)
            {
                long done = Interlocked.Add(ref _done, amount);
                if (_watch.Elapsed < _next) return;
                lock (_lock)
                {
                    if (_watch.Elapsed < _next) return;
                    _next = _watch.Elapsed + Interval;
                    error.WriteLine(Describe(title, done, total, unit, _watch.Elapsed));
                }
            }

            public void Dispose()
            {
            }
        }
    }

    private sealed class BarProgress(TextWriter error, bool useColor) : IProgressSink
    {
        private readonly IAnsiConsole _console = AnsiConsole.Create(new AnsiConsoleSettings
        {
            Out = new AnsiConsoleOutput(error),
            ColorSystem = useColor ? ColorSystemSupport.Detect : ColorSystemSupport.NoColors,
        });

        public IProgressTask Start(string title, long total, string unit) => new Bar(_console, title, total, unit);

        /// <summary>Spectre draws inside a callback; the task keeps that callback alive on its own thread until it is disposed.</summary>
        private sealed class Bar : IProgressTask
        {
            private readonly Stopwatch _watch = Stopwatch.StartNew();
            private readonly ManualResetEventSlim _ended = new();
            private readonly Thread _thread;
            private long _done;

            public Bar(IAnsiConsole console, string title, long total, string unit)
            {
                _thread = new Thread(() => console.Progress()
                    .AutoClear(true)
                    .Columns(new TaskDescriptionColumn { Alignment = Justify.Left }, new ProgressBarColumn(), new PercentageColumn())
                    .Start(context =>
                    {
                        ProgressTask task = context.AddTask(Markup.Escape(title), maxValue: Math.Max(total, 1));
                        while (!_ended.Wait(TimeSpan.FromMilliseconds(100)))
                        {
                            long done = Interlocked.Read(ref _done);
                            task.Value = done;
                            task.Description = Markup.Escape(Describe(title, done, total, unit, _watch.Elapsed));
                        }
                    }))
                { IsBackground = true };
                _thread.Start();
            }

            public void Advance(long amount) => Interlocked.Add(ref _done, amount);

            public void Dispose()
            {
                _ended.Set();
                _thread.Join();
                _ended.Dispose();
            }
        }
    }
}
