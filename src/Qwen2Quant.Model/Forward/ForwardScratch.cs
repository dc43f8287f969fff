using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Model;

/// <summary>Activation buffers of one sequence, kept from call to call; each starts at a multiple of 64 bytes and holds what was last written.</summary>
internal sealed unsafe class ForwardScratch
{
    private readonly float[][] _storage = new float[Enum.GetValues<Slot>().Length][];

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

    public float* Get(Slot slot, long floatCount)
    {
        float[]? held = _storage[(int)slot];
        if (held is null || held.Length < floatCount + 16) _storage[(int)slot] = held = MatrixProductPanels.AllocateAligned(floatCount, out _);
        fixed (float* first = held) return (float*)(((nuint)first + 63) & ~(nuint)63);
    }
}
