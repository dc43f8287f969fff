using System.Numerics.Tensors;
using System.Runtime.InteropServices;

namespace Qwen2Quant.Core.Numerics;

/// <summary>IEEE half rows: widening is exact, narrowing rounds to nearest even and overflows to infinity.</summary>
public static class HalfRows
{
    public static void Widen(ReadOnlySpan<ushort> source, Span<float> destination) =>
        TensorPrimitives.ConvertToSingle(MemoryMarshal.Cast<ushort, Half>(source), destination);

    public static void Narrow(ReadOnlySpan<float> source, Span<ushort> destination) =>
        TensorPrimitives.ConvertToHalf(source, MemoryMarshal.Cast<ushort, Half>(destination));
}
