using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Formats.Packed;

/// <summary>
/// The grid of <see cref="IntegerGridType"/>, whose values are <c>scale * (code - zero)</c>. Scales and zeros are searched for by the weighted squared error under the
/// scale as it is stored. Scales are positive, and never zero: a reader may divide by them.
/// </summary>
/// <param name="bits">2, 3, 4 or 8.</param>
/// <param name="isSymmetric">The zero is the middle code, and is not stored.</param>
/// <param name="leastZero">The least zero that the layout can store.</param>
/// <param name="stored">Scales as they are stored, in 16 bits.</param>
internal readonly struct IntegerGrid(int bits, int groupLength, bool isSymmetric, int leastZero, StoredScale stored) : IGroupGrid
{
    /// <summary>The smallest normal half: the scale of groups of zeros, and exact in bfloat16 too.</summary>
    private const float ScaleOfZeros = 1f / (1 << 14);

    /// <summary>The smallest half above zero.</summary>
    private const float LeastScale = 1f / (1 << 24);

    private const float Rounding = SymmetricSearch.Rounding;

    public static bool HasOrigins => false;

    public int Bits => bits;

    public int GroupLength => groupLength;

    public int CodesOffset => isSymmetric ? 2 : 3;

    public StoredScale Stored => stored;

    public int LargestCode { get; } = (1 << bits) - 1;

    public int MiddleCode => 1 << (bits - 1);

    public (float Scale, float Origin) Read(ReadOnlySpan<byte> block) => (stored.Read(block), ZeroOf(block));

    public int ZeroOf(ReadOnlySpan<byte> block) => isSymmetric ? MiddleCode : block[2];

    public void Write(float scale, float zero, Span<byte> block)
    {
        stored.Write(scale, block);
        if (!isSymmetric) block[2] = (byte)zero;
    }

    public (float Scale, float Origin) ForCodes(ReadOnlySpan<float> group, Effort effort, float scale, float zero) => (scale, zero);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public T Code<T>(T value, T scale, T zero) where T : unmanaged, ILanes<T> =>
        LaneMath.RoundToEven(T.Max(T.Min(value / scale, T.Broadcast(LargestCode) - zero), LaneMath.Negate(zero))) + zero;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public T Value<T>(T code, T scale, T zero) where T : unmanaged, ILanes<T> => (code - zero) * scale;

    public void Fit<T>(ref readonly float values, ref readonly float weights, bool hasImportance, Effort effort, ref float scales, ref float zeros) where T : unmanaged, ILanes<T>
    {
        int length = groupLength;
        T low = T.Broadcast(0), high = low;
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            low = T.Min(value, low);
            high = T.Max(value, high);
        }

        T range = isSymmetric ? T.Max(high, LaneMath.Negate(low)) : high - low;
        T middle = T.Broadcast(MiddleCode);
        T zero = middle, scale;
        if (effort == Effort.Reference)
        {
            // Both extremes on the grid, zero rounded: s = 2 max|w| / largest code, or s = (max - min) / largest code.
            scale = Store(range / T.Broadcast(isSymmetric ? LargestCode / 2f : LargestCode));
            if (!isSymmetric) zero = StoreZero(LaneMath.Negate(low) / scale);
        }
        else
        {
            (int trials, int refits) = Work(effort);
            scale = Trial(in values, in weights, length, range, low + high, Steps(hasImportance), trials, ref zero, out T error);
            for (int pass = 0; pass < refits; pass++) Refit(in values, in weights, length, ref scale, ref zero, ref error);
        }

        T isZero = T.Equal(range, T.Broadcast(0));
        T.Store(T.Select(isZero, T.Broadcast(ScaleOfZeros), scale), ref scales);
        T.Store(T.Select(isZero, middle, zero), ref zeros);
    }

    /// <summary>How many scales are tried, and how often the best is refitted to its codes by least squares with zeros beside its own. Of 256 codes hardly any is worth cutting off.</summary>
    private (int Trials, int Refits) Work(Effort effort) => (effort, LargestCode) switch
    {
        (Effort.Fast, 255) => (4, 1),
        (Effort.Normal, 255) => (8, 1),
        (_, 255) => (32, 2),
        (Effort.Fast, _) => (8, 1),
        (Effort.Normal, _) => (24, 2),
        _ => (96, 4),
    };

    /// <summary>
    /// How many steps are laid over the range (over the larger side of a symmetric one), least and most: from where nothing is cut off to where the error of what is
    /// cut off outweighs the finer grid, which is the farther the fewer codes there are, and farther where extremes may weigh little.
    /// </summary>
    private (float Least, float Most) Steps(bool hasImportance)
    {
        float stretch = LargestCode switch { 3 => 2.2f, 7 => 1.7f, 15 => 1.45f, _ => 1.03f };
        if (hasImportance) stretch += (stretch - 1) * 0.8f;
        return isSymmetric ? (MiddleCode - 1, MiddleCode * stretch) : (LargestCode - 0.5f, LargestCode * stretch);
    }

    private T Trial<T>(
        ref readonly float values, ref readonly float weights, int length, T range, T lowPlusHigh, (float Least, float Most) steps, int trials, ref T zero, out T error) where T : unmanaged, ILanes<T>
    {
        T scale = T.Broadcast(0), centre = zero;
        error = T.Broadcast(float.PositiveInfinity);
        for (int n = 0; n < trials; n += 2)
        {
            T first = Store(range / T.Broadcast(steps.Least + ((steps.Most - steps.Least) * n / (trials - 1))));
            T second = Store(range / T.Broadcast(steps.Least + ((steps.Most - steps.Least) * (n + 1) / (trials - 1))));
            if (isSymmetric)
            {
                Keep(in values, in weights, length, first, centre, second, centre, ref scale, ref zero, ref error);
                continue;
            }

            // The zero that cuts off as much above as below, rounded down and up.
            Pair(lowPlusHigh, first, out T below, out T above);
            Keep(in values, in weights, length, first, below, first, above, ref scale, ref zero, ref error);
            Pair(lowPlusHigh, second, out below, out above);
            Keep(in values, in weights, length, second, below, second, above, ref scale, ref zero, ref error);
        }

        return scale;
    }

    private void Pair<T>(T lowPlusHigh, T scale, out T below, out T above) where T : unmanaged, ILanes<T>
    {
        T centred = T.Broadcast(LargestCode / 2f) - (lowPlusHigh / (scale + scale));
        below = StoreZero(centred - T.Broadcast(0.5f));
        above = StoreZero(centred + T.Broadcast(0.5f));
    }

    private void Refit<T>(ref readonly float values, ref readonly float weights, int length, ref T scale, ref T zero, ref T error) where T : unmanaged, ILanes<T>
    {
        T fitted = Fitted(in values, in weights, length, scale, zero);
        if (isSymmetric)
        {
            T centre = zero;
            Keep(in values, in weights, length, fitted, centre, fitted, centre, ref scale, ref zero, ref error);
            return;
        }

        T own = zero;
        T below = StoreZero(own - T.Broadcast(1)), above = StoreZero(own + T.Broadcast(1));
        T fittedBelow = Fitted(in values, in weights, length, scale, below), fittedAbove = Fitted(in values, in weights, length, scale, above);
        Keep(in values, in weights, length, fitted, own, fittedBelow, below, ref scale, ref zero, ref error);
        Keep(in values, in weights, length, fittedAbove, above, fittedAbove, above, ref scale, ref zero, ref error);
    }

    /// <summary>The scale of least error for the codes that are nearest under another: the sum of weight x value x (code - zero) over that of weight x (code - zero)^2.</summary>
    private T Fitted<T>(ref readonly float values, ref readonly float weights, int length, T scale, T zero) where T : unmanaged, ILanes<T>
    {
        Candidate<T> candidate = new(scale, zero, LargestCode);
        T valueSum = T.Broadcast(0), codeSum = valueSum;
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T weight = Search.At<T>(in weights, i);
            T code = candidate.Code(value);
            valueSum = T.MultiplyAdd(weight * value, code, valueSum);
            codeSum = T.MultiplyAdd(weight * code, code, codeSum);
        }

        T fitted = valueSum / codeSum;
        return Store(T.Select(T.Greater(fitted, T.Broadcast(0)), fitted, scale));
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private void Keep<T>(ref readonly float values, ref readonly float weights, int length, T scale0, T zero0, T scale1, T zero1, ref T scale, ref T zero, ref T error)
        where T : unmanaged, ILanes<T>
    {
        Candidate<T> first = new(scale0, zero0, LargestCode), second = new(scale1, zero1, LargestCode);
        T error0 = T.Broadcast(0), error1 = error0;
        for (int i = 0; i < length; i++)
        {
            T value = Search.At<T>(in values, i);
            T weight = Search.At<T>(in weights, i);
            T rest0 = T.MultiplyAdd(first.Code(value), first.Back, value);
            T rest1 = T.MultiplyAdd(second.Code(value), second.Back, value);
            error0 = T.MultiplyAdd(rest0 * weight, rest0, error0);
            error1 = T.MultiplyAdd(rest1 * weight, rest1, error1);
        }

        KeepLess(error0, scale0, zero0, ref scale, ref zero, ref error);
        KeepLess(error1, scale1, zero1, ref scale, ref zero, ref error);
    }

    private static void KeepLess<T>(T candidateError, T candidateScale, T candidateZero, ref T scale, ref T zero, ref T error) where T : unmanaged, ILanes<T>
    {
        T better = T.Greater(error, candidateError);
        error = T.Select(better, candidateError, error);
        scale = T.Select(better, candidateScale, scale);
        zero = T.Select(better, candidateZero, zero);
    }

    /// <summary>The nearest scale that can be stored, above zero.</summary>
    private T Store<T>(T scale) where T : unmanaged, ILanes<T> => T.Max(stored.Round(scale), T.Broadcast(LeastScale));

    private T StoreZero<T>(T zero) where T : unmanaged, ILanes<T> => LaneMath.RoundToEven(LaneMath.Clamp(zero, leastZero, LargestCode));

    /// <summary>A scale and a zero on trial.</summary>
    private readonly struct Candidate<T>(T scale, T zero, int largestCode) where T : unmanaged, ILanes<T>
    {
        private readonly T _inverse = LaneMath.FiniteInverse(scale);
        private readonly T _low = T.Broadcast(Rounding) - zero;
        private readonly T _high = T.Broadcast(Rounding + largestCode) - zero;

        public readonly T Back = LaneMath.Negate(scale);

        /// <summary>The nearest code less the zero.</summary>
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        public T Code(T value) => SymmetricSearch.Code(value, _inverse, _low, _high);
    }
}
