using System.Runtime.InteropServices;

namespace Qwen2Quant.Cli;

/// <summary>SIGINT and SIGTERM: the first asks the run to stop at the next slab, the second stops at once.</summary>
internal sealed class Interruption : IDisposable
{
    private const int Interrupt = 2, Terminate = 15;
    private readonly CancellationTokenSource _source = new();
    private readonly List<PosixSignalRegistration> _registrations = [];

    public Interruption()
    {
        Register(PosixSignal.SIGINT, Interrupt);
        Register(PosixSignal.SIGTERM, Terminate);
    }

    public CancellationToken Token => _source.Token;

    /// <summary>Number of the signal that came, if one came.</summary>
    public int? Signal { get; private set; }

    /// <summary>Is asked first at SIGINT, on another thread: true when it ended a part of the run and the rest goes on.</summary>
    public Func<bool>? Intercept { get; set; }

    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations) registration.Dispose();
        _source.Dispose();
    }

    private void Register(PosixSignal signal, int number) => _registrations.Add(PosixSignalRegistration.Create(signal, context =>
    {
        if (Signal is not null) return;
        context.Cancel = true;
        if (number == Interrupt && Intercept?.Invoke() == true) return;
        Signal = number;
        _source.Cancel();
    }));
}
