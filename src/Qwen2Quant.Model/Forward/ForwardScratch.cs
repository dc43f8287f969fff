using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Model;

/// <summary>Activation buffers of one sequence, kept from call to call; each starts at a multiple of 64 bytes and holds what was last written.</summary>
internal sealed unsafe class ForwardScratch : IDisposable
{
    private readonly NativeFloats[] _storage = [.. Enum.GetValues<Slot>().Select(_ => new NativeFloats())];

    public enum Slot
    {
        Residual,
        Normalized,
        QueryKeyValue,
        Attention,
        GateUp,
        Activated,
        Router,
        SharedGate,
        ExpertInput,
        ExpertOutput,
    }

    public float* Get(Slot slot, long floatCount) => _storage[(int)slot].Get(floatCount);

    public void Dispose()
    {
        foreach (NativeFloats held in _storage) held.Dispose();
    }
}
