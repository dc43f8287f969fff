using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>Halves to floats, eight at a time.</summary>
internal static unsafe class EightHalves
{
    /// <summary>The half at <paramref name="first"/> and those that follow it every <paramref name="stride"/> bytes.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> At(byte* first, int stride)
    {
        Vector128<ushort> low = Vector128.CreateScalarUnsafe((uint)*(ushort*)first).AsUInt16(), high = Vector128.CreateScalarUnsafe((uint)*(ushort*)(first + (4 * stride))).AsUInt16();
        low = Sse2.Insert(low, *(ushort*)(first + stride), 1);
        high = Sse2.Insert(high, *(ushort*)(first + (5 * stride)), 1);
        low = Sse2.Insert(low, *(ushort*)(first + (2 * stride)), 2);
        high = Sse2.Insert(high, *(ushort*)(first + (6 * stride)), 2);
        low = Sse2.Insert(low, *(ushort*)(first + (3 * stride)), 3);
        high = Sse2.Insert(high, *(ushort*)(first + (7 * stride)), 3);
        return Widen(Sse2.UnpackLow(low.AsInt64(), high.AsInt64()).AsUInt16());
    }

    /// <summary>The bits move to their places under a sign that is spread below itself; a power of two mends the exponent, of infinities and NaN too.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector256<float> Widen(Vector128<ushort> halves)
    {
        Vector256<int> bits = Avx2.ShiftLeftLogical(Avx2.ConvertToVector256Int32(halves), 16);
        Vector256<int> moved = Avx2.And(Avx2.ShiftRightArithmetic(bits, 3), Vector256.Create(unchecked((int)0x8fffe000)));
        Vector256<float> values = Avx.Multiply(moved.AsSingle(), Vector256.Create(BitConverter.Int32BitsToSingle((127 + 112) << 23)));
        Vector256<int> exponent = Avx2.And(bits, Vector256.Create(0x7c000000));
        return Avx.Or(values, Avx2.And(Avx2.CompareEqual(exponent, Vector256.Create(0x7c000000)), Vector256.Create(0x7f800000)).AsSingle());
    }
}
