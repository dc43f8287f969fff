using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// FP4 E2M1 in doubled units, as <see cref="NibbleTable.Fp4"/>: magnitudes 0, 1, 2, 3, 4, 6, 8, 12 in the low three bits of a nibble, the sign above them.
/// Codes of the grid ascend with the values they mean; zero is code 7, minus zero code 8.
/// </summary>
internal static class Fp4
{
    private const float Largest = 12;

    private const float CellWidth = 1.3f;
    private const float FirstCell = -0.6f;

    /// <summary>1.5 x 2^23, which rounds a sum to integers.</summary>
    private const float RoundingShift = 12582912f;

    /// <summary>Levels by code.</summary>
    public static readonly float[] Table = [.. Enumerable.Range(0, 16).Select(code => NibbleTable.Fp4[Nibble(code)])];

    /// <summary>Halfway between neighbouring magnitudes: the k-th lies in the k-th of 7 cells of equal width, the last of which has no end.</summary>
    private static ReadOnlySpan<float> Bounds => [0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    /// <summary>The nibble of a code of the grid.</summary>
    public static int Nibble(int code) => code < 7 ? 15 - code : code == 7 ? 0 : code == 8 ? 8 : code - 8;

    /// <summary>Inverse of <see cref="Nibble"/>.</summary>
    public static int Code(int nibble) => nibble > 8 ? 15 - nibble : nibble == 0 ? 7 : nibble + 8 - (nibble & 8);

    /// <summary>The nearest magnitude, ties to the even mantissa. <paramref name="magnitudes"/> are not negative.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Round<T>(T magnitudes) where T : unmanaged, ILanes<T>
    {
        T limited = T.Min(magnitudes, T.Broadcast(Largest));
        T power = limited & T.BroadcastInt(0x7f800000);
        T shift = T.Max(power * T.Broadcast(RoundingShift / 2), T.Broadcast(RoundingShift));
        return (limited + shift) - shift;
    }

    /// <summary>Nibbles, as integer lanes, of the levels nearest to values under a step; the smaller of two that are equally near, and zero is never minus zero.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Nibbles<T>(T values, T step, T inverse) where T : unmanaged, ILanes<T>
    {
        T magnitude = LaneMath.Abs(values);
        T cell = T.ToInt(T.Min(T.MultiplyAdd(magnitude, inverse * T.Broadcast(1 / CellWidth), T.Broadcast(-FirstCell / CellWidth)), T.Broadcast(6)));
        // The cell may have been rounded, the comparison is exact.
        T code = T.AddInt(cell, T.ShiftRight(T.Greater(magnitude, T.Lookup16(in Bounds[0], cell) * step), 31));
        T sign = T.ShiftLeft(T.ShiftRight(values, 31), 3);
        return code | (sign & T.GreaterInt(code, T.BroadcastInt(0)));
    }

    /// <summary>The sum of weight x (value - level x step)^2 in units of the step, of the nearest levels.</summary>
    /// <param name="values">Groups of <paramref name="length"/> values as lanes, see <see cref="Search"/>.</param>
    public static T Error<T>(ref readonly float values, ref readonly float weights, int length, T inverse) where T : unmanaged, ILanes<T>
    {
        T error = T.Broadcast(0);
        for (int i = 0; i < length; i++) error = AddError(Search.At<T>(in values, i), Search.At<T>(in weights, i), inverse, error);
        return error;
    }

    /// <summary>Adds to <paramref name="error"/> weight x (value - level x step)^2 in units of the step.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T AddError<T>(T values, T weights, T inverse, T error) where T : unmanaged, ILanes<T>
    {
        T magnitude = LaneMath.Abs(values) * inverse;
        T difference = magnitude - Round(magnitude);
        return T.MultiplyAdd(weights * difference, difference, error);
    }

    public static T Peak<T>(ref readonly float values, int length) where T : unmanaged, ILanes<T>
    {
        T peak = T.Broadcast(0);
        for (int i = 0; i < length; i++) peak = T.Max(LaneMath.Abs(Search.At<T>(in values, i)), peak);
        return peak;
    }
}
