using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// Searches for the scale of a group whose codes are -limit to limit - 1, by the weighted squared error itself. As in <see cref="Search"/> each lane is a
/// group of its own, and value i of lane g lies at <c>i * 16 + g</c>.
/// A trial is the place of the group's value of largest magnitude as a fraction of limit, negative for the side that has the additional code.
/// </summary>
internal static class SymmetricSearch
{
    /// <summary>1.5 x 2^23: sums with it are rounded to integers, ties to even.</summary>
    public const float Rounding = 12582912;

    /// <summary>ggml's extreme on code 127 of 128: rows that were Q8_0 before lose nothing under it.</summary>
    private const float GgmlTrial = -127f / 128;

    /// <summary>
    /// Where less than this share of a group's weighted squares is lost, one value outweighs all others: sums of squares and products differ by nothing but rounding,
    /// and how near the half comes to the scale decides.
    /// </summary>
    private const float MetShare = 1e-4f;

    private static readonly float[] OnesOfBatch = [.. Enumerable.Repeat(1f, 32 * Search.Stride)];

    private static readonly float[] FineTrials =
        [.. Enumerable.Range(0, 64).Select(i => -1f - (0.01f * i)), .. Enumerable.Range(0, 48).Select(i => -0.99f + (0.01f * i)), .. Enumerable.Range(0, 24).Select(i => -1.65f - (0.05f * i)), .. Enumerable.Range(0, 56).Select(i => 0.6f + (0.02f * i))];

    private static readonly float[] FineStoredTrials = [GgmlTrial, .. Enumerable.Range(0, 255).Select(i => -1.008f + (0.0008f * i)), .. Enumerable.Range(0, 64).Select(i => 1.008f - (0.0008f * i))];

    /// <summary>The weights of groups without importance.</summary>
    public static ReadOnlySpan<float> Ones => OnesOfBatch;

    // Each list was chosen greedily, best first, on Gaussian, Laplace, uniform and outlier-heavy groups, with equal and with log-normal weights.
    private static ReadOnlySpan<float> Trials4 => [-1.015f, -0.803f, -1.136f, -0.934f];
    private static ReadOnlySpan<float> Trials8 => [-1.011f, -0.906f, -1.067f, -0.97f, -0.865f, -1.108f, -1.035f, -0.776f, -0.946f, -0.994f, -0.889f, -0.922f];
    private static ReadOnlySpan<float> Trials16 => [-1.003f, -0.947f, -1.028f, -0.983f, -0.887f, -0.927f, -0.958f, -1.013f, -0.826f, -1.048f, -0.867f, -0.993f];
    private static ReadOnlySpan<float> Trials32 => [-0.999f, -0.971f, -0.938f, -0.906f, -0.878f, -1.011f, -0.845f, -0.813f, -0.959f, -0.785f, -0.991f, -0.93f];
    private static ReadOnlySpan<float> WeightedTrials4 => [-1.03f, -0.803f, -1.333f, 1.076f, -1.818f, -1.152f, -0.939f, 1.318f, -0.727f, 0.97f, -0.561f, -1.5f, -0.848f, -2f, -1.076f, -1.227f];
    private static ReadOnlySpan<float> WeightedTrials8 => [-1.012f, -0.903f, -1.145f, -1.315f, -0.964f, -1.061f, -0.77f, 1.061f, -0.855f, -1.521f, -1.218f, 1f, -1.097f, 1.158f, -0.988f, -0.927f];
    private static ReadOnlySpan<float> WeightedTrials16 => [-0.999f, -0.942f, -1.047f, -0.878f, -1.112f, -0.821f, -0.975f, -1.015f, -0.918f, -0.765f, -1.193f, -1.072f, 1.023f, -0.959f, -0.894f, -0.854f];
    private static ReadOnlySpan<float> WeightedTrials32 => [-0.998f, -0.939f, -0.972f, -0.873f, -0.906f, -0.814f, -1.018f, -0.722f, -0.847f, -0.781f, -0.959f, -0.657f, -1.037f, -0.755f, -0.926f, -0.985f];
    private static ReadOnlySpan<float> StoredTrials => [-1f, -0.985f, -0.968f, GgmlTrial, -0.953f, -0.977f, -0.961f, -0.938f];
    private static ReadOnlySpan<float> WeightedStoredTrials => [-1f, -0.977f, GgmlTrial, -0.945f, -0.962f, -0.984f, -0.906f, -0.969f];

    /// <summary>Trials for <see cref="Scales"/>, a multiple of four, at a limit of 4, 8, 16 or 32.</summary>
    public static ReadOnlySpan<float> Trials(int limit, bool hasImportance, Effort effort)
    {
        if (effort == Effort.High) return FineTrials;
        ReadOnlySpan<float> trials = (limit, hasImportance) switch
        {
            (4, false) => Trials4,
            (4, true) => WeightedTrials4,
            (8, false) => Trials8,
            (8, true) => WeightedTrials8,
            (16, false) => Trials16,
            (16, true) => WeightedTrials16,
            (_, false) => Trials32,
            (_, true) => WeightedTrials32,
        };
        return effort == Effort.Fast ? trials[..(hasImportance ? 8 : 4)] : trials;
    }

    /// <summary>Trials for <see cref="StoredScales"/>, a multiple of four, at a limit of 128.</summary>
    public static ReadOnlySpan<float> TrialsOfStored(bool hasImportance, Effort effort) =>
        effort == Effort.High ? FineStoredTrials : hasImportance ? WeightedStoredTrials : StoredTrials;

    /// <summary>
    /// Rounds under each trial. For given codes the best scale is A / B, of the sums of weight x value x code and weight x code^2, and leaves an error of the
    /// weighted squares less A^2 / B.
    /// </summary>
    /// <param name="scales">The best scale of each lane, plus zero for a group of zeros.</param>
    [MethodImpl(MethodImplOptions.NoInlining)]
    public static void Scales<T>(
        ref readonly float values, ref readonly float weights, int length, int limit, bool hasImportance, ReadOnlySpan<float> trials, ref float scales)
        where T : unmanaged, ILanes<T>
    {
        T extreme = Extreme<T>(in values, length);
        T perExtreme = LaneMath.FiniteInverse(extreme);
        T scale = T.Broadcast(0) - (extreme / T.Broadcast(limit)), best = T.Broadcast(0);
        for (int first = 0; first < trials.Length; first += 4)
        {
            KeepFitted(
                in values, in weights, length, limit, T.Broadcast(limit * trials[first]) * perExtreme, T.Broadcast(limit * trials[first + 1]) * perExtreme,
                T.Broadcast(limit * trials[first + 2]) * perExtreme, T.Broadcast(limit * trials[first + 3]) * perExtreme, ref best, ref scale);
        }

        if (hasImportance && FindPivot(in values, in weights, length, limit, extreme, out T below, out T above))
        {
            KeepFitted(in values, in weights, length, limit, below, above, LaneMath.Negate(below), LaneMath.Negate(above), ref best, ref scale);
        }

        T.Store(scale, ref scales);
    }

    /// <summary>
    /// Where one weight is more than all others together, the inverse scales nearest to that of the extreme under which its value, the pivot, is a whole code other than
    /// zero: a pivot far smaller than the extreme lies between codes under all the trials, or is lost. False where there is none in any lane.
    /// </summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool FindPivot<T>(ref readonly float values, ref readonly float weights, int length, int limit, T extreme, out T below, out T above)
        where T : unmanaged, ILanes<T>
    {
        T pivot = T.Broadcast(0), greatest = pivot, sum = pivot;
        for (int i = 0; i < length; i++)
        {
            T weight = Search.At<T>(in weights, i);
            pivot = T.Select(T.Greater(weight, greatest), Search.At<T>(in values, i), pivot);
            greatest = T.Max(weight, greatest);
            sum += weight;
        }

        T isPivot = T.Greater(greatest + greatest, sum);
        T inverse = LaneMath.FiniteInverse(pivot) & isPivot;
        T code = T.Max(T.ToFloat(T.ToInt(LaneMath.Abs(pivot) * T.Broadcast(limit) * LaneMath.FiniteInverse(LaneMath.Abs(extreme)))), T.Broadcast(1));
        below = code * inverse;
        above = (code + T.Broadcast(1)) * inverse;
        return T.TopBits(isPivot) != 0;
    }

    /// <summary>Halves: the scales of <see cref="Scales"/> enlarged by what they lose in <see cref="Gain"/>.</summary>
    public static void HalfScales<T>(
        ref readonly float values, ref readonly float weights, int length, int limit, bool hasImportance, ReadOnlySpan<float> trials, ref float scales)
        where T : unmanaged, ILanes<T>
    {
        Scales<T>(in values, in weights, length, limit, hasImportance, trials, ref scales);
        T scale = T.Load(in scales);
        T fitted = scale * Sums(in values, in weights, length, limit, scale).Xl;
        T squares = AffineSearch.Squares<T>(in values, in weights, length);
        T stored = StoredHalf.Round(scale * Gain.Factor(squares, fitted));
        T isMet = T.Greater(squares * T.Broadcast(MetShare), LaneMath.Abs(squares - fitted));
        if (T.TopBits(isMet) != 0) stored = T.Select(isMet, NearestHalves<T>(in values, in weights, length, limit, hasImportance, trials), stored);
        T.Store(stored, ref scales);
    }

    /// <summary>Of the halves nearest to the best scale of each trial the one that leaves the least error.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static T NearestHalves<T>(ref readonly float values, ref readonly float weights, int length, int limit, bool hasImportance, ReadOnlySpan<float> trials)
        where T : unmanaged, ILanes<T>
    {
        T extreme = Extreme<T>(in values, length);
        T perExtreme = LaneMath.FiniteInverse(extreme);
        T step = T.Broadcast(0), best = T.Broadcast(float.PositiveInfinity);
        for (int first = 0; first < trials.Length; first += 4)
        {
            KeepFittedHalf(
                in values, in weights, length, limit, T.Broadcast(limit * trials[first]) * perExtreme, T.Broadcast(limit * trials[first + 1]) * perExtreme,
                T.Broadcast(limit * trials[first + 2]) * perExtreme, T.Broadcast(limit * trials[first + 3]) * perExtreme, ref best, ref step);
        }

        if (hasImportance && FindPivot(in values, in weights, length, limit, extreme, out T below, out T above))
        {
            KeepFittedHalf(in values, in weights, length, limit, below, above, LaneMath.Negate(below), LaneMath.Negate(above), ref best, ref step);
        }

        return step;
    }

    private static void KeepFittedHalf<T>(
        ref readonly float values, ref readonly float weights, int length, int limit, T inverse0, T inverse1, T inverse2, T inverse3, ref T best, ref T step)
        where T : unmanaged, ILanes<T> =>
        KeepNearest(
            in values, in weights, length, limit, FittedHalf(in values, in weights, length, limit, inverse0), FittedHalf(in values, in weights, length, limit, inverse1),
            FittedHalf(in values, in weights, length, limit, inverse2), FittedHalf(in values, in weights, length, limit, inverse3), ref best, ref step);

    private static T FittedHalf<T>(ref readonly float values, ref readonly float weights, int length, int limit, T inverse) where T : unmanaged, ILanes<T>
    {
        (T xl, T ll) = Sums(in values, in weights, length, limit, LaneMath.FiniteInverse(inverse));
        return StoredHalf.Round(T.Select(T.Greater(ll, T.Broadcast(0)), xl / ll, T.Broadcast(0)));
    }

    /// <summary>Of the halves nearest to each trial's scale the one that leaves the least error: where there are so many codes that the rounding of the scale counts.</summary>
    /// <param name="scales">The best half of each lane, plus zero for a group of zeros.</param>
    [MethodImpl(MethodImplOptions.NoInlining)]
    public static void StoredScales<T>(ref readonly float values, ref readonly float weights, int length, int limit, ReadOnlySpan<float> trials, ref float scales)
        where T : unmanaged, ILanes<T>
    {
        T extreme = Extreme<T>(in values, length);
        T scale = T.Broadcast(0), best = T.Broadcast(float.PositiveInfinity);
        for (int first = 0; first < trials.Length; first += 4)
        {
            T step0 = StoredHalf.Round(extreme / T.Broadcast(limit * trials[first]));
            T step1 = StoredHalf.Round(extreme / T.Broadcast(limit * trials[first + 1]));
            T step2 = StoredHalf.Round(extreme / T.Broadcast(limit * trials[first + 2]));
            T step3 = StoredHalf.Round(extreme / T.Broadcast(limit * trials[first + 3]));
            KeepNearest(in values, in weights, length, limit, step0, step1, step2, step3, ref best, ref scale);
        }

        T.Store(scale, ref scales);
    }

    /// <summary>Of four steps keeps the one under whose nearest codes the weighted squared error is least, if that is less than <paramref name="best"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void KeepNearest<T>(
        ref readonly float values, ref readonly float weights, int length, int limit, T step0, T step1, T step2, T step3, ref T best, ref T step) where T : unmanaged, ILanes<T>
    {
        (T low, T high) = (T.Broadcast(Rounding - limit), T.Broadcast(Rounding + limit - 1));
        T inverse0 = LaneMath.FiniteInverse(step0);
        T inverse1 = LaneMath.FiniteInverse(step1);
        T inverse2 = LaneMath.FiniteInverse(step2);
        T inverse3 = LaneMath.FiniteInverse(step3);
        (T back0, T back1, T back2, T back3) = (LaneMath.Negate(step0), LaneMath.Negate(step1), LaneMath.Negate(step2), LaneMath.Negate(step3));
        T error0 = T.Broadcast(0), error1 = error0, error2 = error0, error3 = error0;
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T weight = Search.At<T>(in weights, i);
            AddError(value, weight, Code(value, inverse0, low, high), back0, ref error0);
            AddError(value, weight, Code(value, inverse1, low, high), back1, ref error1);
            AddError(value, weight, Code(value, inverse2, low, high), back2, ref error2);
            AddError(value, weight, Code(value, inverse3, low, high), back3, ref error3);
        }

        KeepLess(error0, step0, ref best, ref step);
        KeepLess(error1, step1, ref best, ref step);
        KeepLess(error2, step2, ref best, ref step);
        KeepLess(error3, step3, ref best, ref step);
    }

    /// <summary>Sums of weight x value x code and of weight x code^2, codes nearest under <paramref name="step"/>.</summary>
    public static (T Xl, T Ll) Sums<T>(ref readonly float values, ref readonly float weights, int length, int limit, T step) where T : unmanaged, ILanes<T>
    {
        (T low, T high) = (T.Broadcast(Rounding - limit), T.Broadcast(Rounding + limit - 1));
        T inverse = LaneMath.FiniteInverse(step);
        T xl = T.Broadcast(0), ll = xl;
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T weight = Search.At<T>(in weights, i);
            Add(Code(value, inverse, low, high), weight * value, weight, ref xl, ref ll);
        }

        return (xl, ll);
    }

    /// <summary>
    /// The integer nearest to <c>value * inverse</c>, as a float. The sum with <see cref="Rounding"/> rounds it and is cut off where it is, at
    /// <paramref name="low"/> and <paramref name="high"/> plus the same.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Code<T>(T value, T inverse, T low, T high) where T : unmanaged, ILanes<T>
    {
        T rounding = T.Broadcast(Rounding);
        return T.Max(T.Min(T.MultiplyAdd(value, inverse, rounding), high), low) - rounding;
    }

    /// <summary>The value of largest magnitude of each lane.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Extreme<T>(ref readonly float values, int length) where T : unmanaged, ILanes<T>
    {
        T low = T.Broadcast(0), high = low;
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            low = T.Min(value, low);
            high = T.Max(value, high);
        }

        return T.Select(T.Greater(high, LaneMath.Negate(low)), high, low);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Add<T>(T code, T weighted, T weight, ref T xl, ref T ll) where T : unmanaged, ILanes<T>
    {
        xl = T.MultiplyAdd(weighted, code, xl);
        ll = T.MultiplyAdd(weight * code, code, ll);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void AddError<T>(T value, T weight, T code, T back, ref T error) where T : unmanaged, ILanes<T>
    {
        T rest = T.MultiplyAdd(back, code, value);
        error = T.MultiplyAdd(rest * weight, rest, error);
    }

    /// <summary>Rounds under four inverse scales; the best scale of the codes that leave the least error is kept if that is less than before.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void KeepFitted<T>(
        ref readonly float values, ref readonly float weights, int length, int limit, T inverse0, T inverse1, T inverse2, T inverse3, ref T best, ref T scale)
        where T : unmanaged, ILanes<T>
    {
        T zero = T.Broadcast(0);
        (T low, T high) = (T.Broadcast(Rounding - limit), T.Broadcast(Rounding + limit - 1));
        T xl0 = zero, xl1 = zero, xl2 = zero, xl3 = zero, ll0 = zero, ll1 = zero, ll2 = zero, ll3 = zero;
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T weight = Search.At<T>(in weights, i);
            T weighted = weight * value;
            Add(Code(value, inverse0, low, high), weighted, weight, ref xl0, ref ll0);
            Add(Code(value, inverse1, low, high), weighted, weight, ref xl1, ref ll1);
            Add(Code(value, inverse2, low, high), weighted, weight, ref xl2, ref ll2);
            Add(Code(value, inverse3, low, high), weighted, weight, ref xl3, ref ll3);
        }

        KeepFitted(xl0, ll0, ref best, ref scale);
        KeepFitted(xl1, ll1, ref best, ref scale);
        KeepFitted(xl2, ll2, ref best, ref scale);
        KeepFitted(xl3, ll3, ref best, ref scale);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void KeepFitted<T>(T xl, T ll, ref T best, ref T scale) where T : unmanaged, ILanes<T>
    {
        T fitted = xl / ll;
        T gain = fitted * xl;
        // Of scales that are equal but for rounding the earlier trial's: it is the smaller one, which a super-block can store more finely.
        T better = T.Greater(gain, best * T.Broadcast(1.000001f));
        best = T.Select(better, gain, best);
        scale = T.Select(better, fitted, scale);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void KeepLess<T>(T error, T step, ref T best, ref T kept) where T : unmanaged, ILanes<T>
    {
        T better = T.Greater(best, error);
        best = T.Select(better, error, best);
        kept = T.Select(better, step, kept);
    }
}
