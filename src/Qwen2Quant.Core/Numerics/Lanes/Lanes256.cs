using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Core.Numerics.Lanes;

/// <summary>Eight lanes by AVX2.</summary>
public readonly struct Lanes256(Vector256<float> value) : ILanes<Lanes256>
{
    private readonly Vector256<float> _value = value;

    private Vector256<int> Int => _value.AsInt32();

    private static Lanes256 FromInt(Vector256<int> value) => new(value.AsSingle());

    internal Vector256<float> Value => _value;

    public static int Width => 8;

    public static string Name => "avx2";

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Broadcast(float value) => new(Vector256.Create(value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 BroadcastInt(int value) => FromInt(Vector256.Create(value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Load(ref readonly float source) => new(Vector256.LoadUnsafe(in source));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 LoadBytes(ref readonly byte source) =>
        FromInt(Avx2.ConvertToVector256Int32(Vector128.CreateScalarUnsafe(Unsafe.ReadUnaligned<ulong>(in source)).AsByte()));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 LoadSBytes(ref readonly byte source) =>
        FromInt(Avx2.ConvertToVector256Int32(Vector128.CreateScalarUnsafe(Unsafe.ReadUnaligned<ulong>(in source)).AsSByte()));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 LoadUShorts(ref readonly ushort source) => FromInt(Avx2.ConvertToVector256Int32(Vector128.LoadUnsafe(in source)));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Lanes256 value, ref float destination) => value._value.StoreUnsafe(ref destination);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreBytes(Lanes256 value, ref byte destination)
    {
        Vector256<byte> lowBytes = Avx2.Shuffle(value._value.AsByte(), Vector256.Create(0x808080800c080400ul, 0x8080808080808080ul, 0x808080800c080400ul, 0x8080808080808080ul).AsByte());
        Vector128<uint> pairs = Sse2.UnpackLow(lowBytes.GetLower().AsUInt32(), lowBytes.GetUpper().AsUInt32());
        Unsafe.WriteUnaligned(ref destination, pairs.AsUInt64().ToScalar());
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreUShorts(Lanes256 value, ref ushort destination)
    {
        Vector256<ushort> packed = Avx2.PackUnsignedSaturate(value.Int, value.Int);
        Avx2.Permute4x64(packed.AsUInt64(), 0b1000).GetLower().AsUInt16().StoreUnsafe(ref destination);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 operator +(Lanes256 left, Lanes256 right) => new(left._value + right._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 operator -(Lanes256 left, Lanes256 right) => new(left._value - right._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 operator *(Lanes256 left, Lanes256 right) => new(left._value * right._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 operator /(Lanes256 left, Lanes256 right) => new(left._value / right._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 MultiplyAdd(Lanes256 left, Lanes256 right, Lanes256 addend) => new(Fma.MultiplyAdd(left._value, right._value, addend._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 operator &(Lanes256 left, Lanes256 right) => new(left._value & right._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 operator |(Lanes256 left, Lanes256 right) => new(left._value | right._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Min(Lanes256 left, Lanes256 right) => new(Avx.Min(left._value, right._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Max(Lanes256 left, Lanes256 right) => new(Avx.Max(left._value, right._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Sqrt(Lanes256 value) => new(Avx.Sqrt(value._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Greater(Lanes256 left, Lanes256 right) => new(Vector256.GreaterThan(left._value, right._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Equal(Lanes256 left, Lanes256 right) => new(Vector256.Equals(left._value, right._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 GreaterInt(Lanes256 left, Lanes256 right) => FromInt(Vector256.GreaterThan(left.Int, right.Int));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Select(Lanes256 mask, Lanes256 yes, Lanes256 no) => new(Vector256.ConditionalSelect(mask._value, yes._value, no._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint TopBits(Lanes256 value) => (uint)Avx.MoveMask(value._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 AddInt(Lanes256 left, Lanes256 right) => FromInt(left.Int + right.Int);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 ShiftLeft(Lanes256 value, int count) => FromInt(Vector256.ShiftLeft(value.Int, count));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 ShiftRight(Lanes256 value, int count) => FromInt(Vector256.ShiftRightLogical(value.Int, count));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 ToInt(Lanes256 value) => FromInt(Avx.ConvertToVector256Int32WithTruncation(value._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 ToFloat(Lanes256 value) => new(Avx.ConvertToVector256Single(value.Int));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes256 Lookup16(ref readonly float table, Lanes256 index)
    {
        Vector256<float> low = Avx2.PermuteVar8x32(Vector256.LoadUnsafe(in table), index.Int);
        Vector256<float> high = Avx2.PermuteVar8x32(Vector256.LoadUnsafe(in table, 8), index.Int);
        return new(Avx.BlendVariable(low, high, Vector256.ShiftLeft(index.Int, 28).AsSingle()));
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float MaxAcross(Lanes256 value)
    {
        Vector128<float> fours = Sse.Max(value._value.GetLower(), value._value.GetUpper());
        Vector128<float> pairs = Sse.Max(fours, Sse.MoveHighToLow(fours, fours));
        return Sse.MaxScalar(pairs, Sse.Shuffle(pairs, pairs, 1)).ToScalar();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float MinAcross(Lanes256 value)
    {
        Vector128<float> fours = Sse.Min(value._value.GetLower(), value._value.GetUpper());
        Vector128<float> pairs = Sse.Min(fours, Sse.MoveHighToLow(fours, fours));
        return Sse.MinScalar(pairs, Sse.Shuffle(pairs, pairs, 1)).ToScalar();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float SumAcross(Lanes256 value) => Lanes128.SumAcross(new(value._value.GetLower() + value._value.GetUpper()));
}
