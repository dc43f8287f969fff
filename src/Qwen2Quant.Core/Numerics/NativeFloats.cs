using System.Runtime.InteropServices;

namespace Qwen2Quant.Core.Numerics;

/// <summary>Floats outside the collected heap at a multiple of 64 bytes, kept and grown as needed; what they held is lost when they grow. For one thread at a time.</summary>
public sealed unsafe class NativeFloats : IDisposable
{
    private float* _first;
    private long _capacity;

    ~NativeFloats() => Free();

    /// <summary>Room for <paramref name="floatCount"/> floats, valid until the next call and while this object is referenced.</summary>
    public float* Get(long floatCount)
    {
        if (floatCount > _capacity)
        {
            Free();
            _first = (float*)NativeMemory.AlignedAlloc(checked((nuint)floatCount * sizeof(float)), 64);
            _capacity = floatCount;
            GC.AddMemoryPressure(floatCount * sizeof(float));
        }

        return _first;
    }

    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    private void Free()
    {
        if (_first is null) return;
        NativeMemory.AlignedFree(_first);
        GC.RemoveMemoryPressure(_capacity * sizeof(float));
        _first = null;
        _capacity = 0;
    }
}
