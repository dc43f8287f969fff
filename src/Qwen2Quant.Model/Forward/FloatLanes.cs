using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Model;

/// <summary>The operations of one vector width, so that a row kernel is written once.</summary>
/// <typeparam name="TVector">The register.</typeparam>
internal unsafe interface IFloatLanes<TVector> where TVector : struct
{
    static abstract int Count { get; }
    static abstract TVector Load(float* source);
    static abstract void Store(TVector value, float* destination);
    static abstract TVector Create(float value);
    static abstract TVector Add(TVector a, TVector b);
    static abstract TVector Subtract(TVector a, TVector b);
    static abstract TVector Multiply(TVector a, TVector b);
    static abstract TVector Divide(TVector a, TVector b);

    /// <summary><c>a b + c</c>, rounded once where the machine can.</summary>
    static abstract TVector MultiplyAdd(TVector a, TVector b, TVector c);

    static abstract TVector Clamp(TVector value, TVector low, TVector high);

    /// <summary>To the nearest integer, ties to even.</summary>
    static abstract TVector Round(TVector value);

    /// <summary><c>value 2^exponent</c> for integral exponents from -126 to 127.</summary>
    static abstract TVector ScaleByPowerOfTwo(TVector value, TVector exponent);

    static abstract float Sum(TVector value);
}

internal readonly unsafe struct Lanes512 : IFloatLanes<Vector512<float>>
{
    public static int Count => 16;
    public static Vector512<float> Load(float* source) => Avx512F.LoadVector512(source);
    public static void Store(Vector512<float> value, float* destination) => Avx512F.Store(destination, value);
    public static Vector512<float> Create(float value) => Vector512.Create(value);
    public static Vector512<float> Add(Vector512<float> a, Vector512<float> b) => Avx512F.Add(a, b);
    public static Vector512<float> Subtract(Vector512<float> a, Vector512<float> b) => Avx512F.Subtract(a, b);
    public static Vector512<float> Multiply(Vector512<float> a, Vector512<float> b) => Avx512F.Multiply(a, b);
    public static Vector512<float> Divide(Vector512<float> a, Vector512<float> b) => Avx512F.Divide(a, b);
    public static Vector512<float> MultiplyAdd(Vector512<float> a, Vector512<float> b, Vector512<float> c) => Avx512F.FusedMultiplyAdd(a, b, c);
    public static Vector512<float> Clamp(Vector512<float> value, Vector512<float> low, Vector512<float> high) => Avx512F.Min(high, Avx512F.Max(low, value));
    public static Vector512<float> Round(Vector512<float> value) => Avx512F.RoundScale(value, 8);
    public static Vector512<float> ScaleByPowerOfTwo(Vector512<float> value, Vector512<float> exponent) => Avx512F.Scale(value, exponent);
    public static float Sum(Vector512<float> value) => Lanes256.Sum(Avx.Add(value.GetLower(), value.GetUpper()));
}

internal readonly unsafe struct Lanes256 : IFloatLanes<Vector256<float>>
{
    public static int Count => 8;
    public static Vector256<float> Load(float* source) => Avx.LoadVector256(source);
    public static void Store(Vector256<float> value, float* destination) => Avx.Store(destination, value);
    public static Vector256<float> Create(float value) => Vector256.Create(value);
    public static Vector256<float> Add(Vector256<float> a, Vector256<float> b) => Avx.Add(a, b);
    public static Vector256<float> Subtract(Vector256<float> a, Vector256<float> b) => Avx.Subtract(a, b);
    public static Vector256<float> Multiply(Vector256<float> a, Vector256<float> b) => Avx.Multiply(a, b);
    public static Vector256<float> Divide(Vector256<float> a, Vector256<float> b) => Avx.Divide(a, b);
    public static Vector256<float> MultiplyAdd(Vector256<float> a, Vector256<float> b, Vector256<float> c) => Fma.MultiplyAdd(a, b, c);
    public static Vector256<float> Clamp(Vector256<float> value, Vector256<float> low, Vector256<float> high) => Avx.Min(high, Avx.Max(low, value));
    public static Vector256<float> Round(Vector256<float> value) => Avx.RoundToNearestInteger(value);

    public static Vector256<float> ScaleByPowerOfTwo(Vector256<float> value, Vector256<float> exponent)
    {
        Vector256<int> bits = Avx2.ShiftLeftLogical(Avx2.Add(Avx.ConvertToVector256Int32(exponent), Vector256.Create(127)), 23);
        return Avx.Multiply(value, bits.AsSingle());
    }

    public static float Sum(Vector256<float> value) => Lanes128.Sum(value.GetLower() + value.GetUpper());
}

internal readonly unsafe struct Lanes128 : IFloatLanes<Vector128<float>>
{
    public static int Count => 4;
    public static Vector128<float> Load(float* source) => Vector128.Load(source);
    public static void Store(Vector128<float> value, float* destination) => value.Store(destination);
    public static Vector128<float> Create(float value) => Vector128.Create(value);
    public static Vector128<float> Add(Vector128<float> a, Vector128<float> b) => a + b;
    public static Vector128<float> Subtract(Vector128<float> a, Vector128<float> b) => a - b;
    public static Vector128<float> Multiply(Vector128<float> a, Vector128<float> b) => a * b;
    public static Vector128<float> Divide(Vector128<float> a, Vector128<float> b) => a / b;
    public static Vector128<float> MultiplyAdd(Vector128<float> a, Vector128<float> b, Vector128<float> c) => Vector128.MultiplyAddEstimate(a, b, c);
    public static Vector128<float> Clamp(Vector128<float> value, Vector128<float> low, Vector128<float> high) => Vector128.Min(high, Vector128.Max(low, value));
    public static Vector128<float> Round(Vector128<float> value) => Vector128.Round(value);

    public static Vector128<float> ScaleByPowerOfTwo(Vector128<float> value, Vector128<float> exponent) =>
        value * ((Vector128.ConvertToInt32(exponent) + Vector128.Create(127)) << 23).AsSingle();

    public static float Sum(Vector128<float> value) => (value[0] + value[2]) + (value[1] + value[3]);
}

internal readonly unsafe struct LanesScalar : IFloatLanes<float>
{
    public static int Count => 1;
    public static float Load(float* source) => *source;
    public static void Store(float value, float* destination) => *destination = value;
    public static float Create(float value) => value;
    public static float Add(float a, float b) => a + b;
    public static float Subtract(float a, float b) => a - b;
    public static float Multiply(float a, float b) => a * b;
    public static float Divide(float a, float b) => a / b;
    public static float MultiplyAdd(float a, float b, float c) => (a * b) + c;
    public static float Clamp(float value, float low, float high) => MathF.Min(high, MathF.Max(low, value));
    public static float Round(float value) => MathF.Round(value);
    public static float ScaleByPowerOfTwo(float value, float exponent) => value * BitConverter.Int32BitsToSingle(((int)exponent + 127) << 23);
    public static float Sum(float value) => value;
}
