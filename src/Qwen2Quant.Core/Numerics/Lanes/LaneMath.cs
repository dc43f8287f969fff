using System.Runtime.CompilerServices;

namespace Qwen2Quant.Core.Numerics.Lanes;

/// <summary>Steps that kernels of several types share, over lanes of any width.</summary>
public static class LaneMath
{
    /// <summary>1.5 x 2^23: adding and subtracting it rounds to the nearest integer, ties to even, for magnitudes up to 2^22 (ggml's <c>nearest_int</c>).</summary>
    private const float RoundingShift = 12582912f;

    /// <summary>The float below one half: added before truncation it rounds ties away from zero and nothing below a tie.</summary>
    private const float BelowHalf = 0.49999997f;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Abs<T>(T value) where T : unmanaged, ILanes<T> => value & T.BroadcastInt(0x7fffffff);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Negate<T>(T value) where T : unmanaged, ILanes<T> => T.Broadcast(-0f) - value;

    /// <summary>Nearest integer as a float, ties to even; never minus zero.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T RoundToEven<T>(T value) where T : unmanaged, ILanes<T> =>
        (value + T.Broadcast(RoundingShift)) - T.Broadcast(RoundingShift);

    /// <summary>Nearest integer, ties away from zero (C's <c>roundf</c>), as an integer lane; magnitudes below 2^22.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T RoundAwayToInt<T>(T value) where T : unmanaged, ILanes<T> =>
        T.ToInt(value + ((value & T.Broadcast(-0f)) | T.Broadcast(BelowHalf)));

    /// <summary>Between <paramref name="low"/> and <paramref name="high"/>; NaN becomes <paramref name="high"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Clamp<T>(T value, float low, float high) where T : unmanaged, ILanes<T> =>
        T.Max(T.Min(value, T.Broadcast(high)), T.Broadcast(low));

    /// <summary><c>1 / value</c>, and 0 where that is not finite.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T FiniteInverse<T>(T value) where T : unmanaged, ILanes<T>
    {
        T inverse = T.Broadcast(1) / value;
        return inverse & T.Greater(T.Broadcast(float.PositiveInfinity), Abs(inverse));
    }
}
