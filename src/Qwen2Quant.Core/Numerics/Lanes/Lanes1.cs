using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Qwen2Quant.Core.Numerics.Lanes;

/// <summary>One lane: the scalar form of every kernel.</summary>
public readonly struct Lanes1(float value) : ILanes<Lanes1>
{
    private readonly float _value = value;

    private int Int => BitConverter.SingleToInt32Bits(_value);

    private static Lanes1 FromInt(int value) => new(BitConverter.Int32BitsToSingle(value));

    // Through a vector: .NET 10 compiles the plain reinterpretation of a byte or short in memory to a load of four bytes.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Lanes1 FromLoaded(int value) => new(Vector128.CreateScalarUnsafe(value).AsSingle().ToScalar());

    private static Lanes1 FromBool(bool value) => FromInt(value ? -1 : 0);

    public static int Width => 1;

    public static string Name => "scalar";

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 Broadcast(float value) => new(value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 BroadcastInt(int value) => FromInt(value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 Load(ref readonly float source) => new(source);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 LoadBytes(ref readonly byte source) => FromLoaded(source);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 LoadSBytes(ref readonly byte source) => FromLoaded((sbyte)source);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 LoadUShorts(ref readonly ushort source) => FromLoaded(Unsafe.ReadUnaligned<ushort>(in Unsafe.As<ushort, byte>(ref Unsafe.AsRef(in source))));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Lanes1 value, ref float destination) => destination = value._value;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreBytes(Lanes1 value, ref byte destination) => destination = (byte)value.Int;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreUShorts(Lanes1 value, ref ushort destination) => Unsafe.WriteUnaligned(ref Unsafe.As<ushort, byte>(ref destination), (ushort)value.Int);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 operator +(Lanes1 left, Lanes1 right) => new(left._value + right._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 operator -(Lanes1 left, Lanes1 right) => new(left._value - right._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 operator *(Lanes1 left, Lanes1 right) => new(left._value * right._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 operator /(Lanes1 left, Lanes1 right) => new(left._value / right._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 MultiplyAdd(Lanes1 left, Lanes1 right, Lanes1 addend) => new(MathF.FusedMultiplyAdd(left._value, right._value, addend._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 operator &(Lanes1 left, Lanes1 right) => FromInt(left.Int & right.Int);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 operator |(Lanes1 left, Lanes1 right) => FromInt(left.Int | right.Int);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 Min(Lanes1 left, Lanes1 right) => left._value < right._value ? left : right;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 Max(Lanes1 left, Lanes1 right) => left._value > right._value ? left : right;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 Sqrt(Lanes1 value) => new(MathF.Sqrt(value._value));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 Greater(Lanes1 left, Lanes1 right) => FromBool(left._value > right._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 Equal(Lanes1 left, Lanes1 right) => FromBool(left._value == right._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 GreaterInt(Lanes1 left, Lanes1 right) => FromBool(left.Int > right.Int);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 Select(Lanes1 mask, Lanes1 yes, Lanes1 no) => mask.Int != 0 ? yes : no;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint TopBits(Lanes1 value) => (uint)value.Int >> 31;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 AddInt(Lanes1 left, Lanes1 right) => FromInt(left.Int + right.Int);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 ShiftLeft(Lanes1 value, int count) => FromInt(value.Int << count);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 ShiftRight(Lanes1 value, int count) => FromInt(value.Int >>> count);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 ToInt(Lanes1 value) => FromInt((int)value._value);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 ToFloat(Lanes1 value) => new(value.Int);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Lanes1 Lookup16(ref readonly float table, Lanes1 index) => new(Unsafe.Add(ref Unsafe.AsRef(in table), index.Int));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float MaxAcross(Lanes1 value) => value._value;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float MinAcross(Lanes1 value) => value._value;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float SumAcross(Lanes1 value) => value._value;
}
