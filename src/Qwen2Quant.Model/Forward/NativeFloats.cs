using System.Runtime.InteropServices;

namespace Qwen2Quant.Model;

/// <summary>
/// Floats outside the collected heap, beginning at a multiple of 64 bytes; any number of them. They take memory as they are first written,
/// are undefined until then, and are freed when nothing refers to this object.
/// </summary>
internal sealed unsafe class NativeFloats
{
    private const nuint Alignment = 64;

    private readonly long _byteCount;

    /// <exception cref="OutOfMemoryException">The system refuses.</exception>
    public NativeFloats(long count)
    {
        _byteCount = ByteCount(count);
        Pointer = (float*)NativeMemory.AlignedAlloc((nuint)_byteCount, Alignment);
        GC.AddMemoryPressure(_byteCount);
    }

    ~NativeFloats()
    {
        if (Pointer is null) return;
        NativeMemory.AlignedFree(Pointer);
        GC.RemoveMemoryPressure(_byteCount);
    }

    /// <summary>Valid while this object is referenced.</summary>
    public float* Pointer { get; }

    public static long ByteCount(long count) => checked(count * sizeof(float));
}
