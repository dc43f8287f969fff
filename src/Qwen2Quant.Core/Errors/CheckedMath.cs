namespace Qwen2Quant.Core.Errors;

/// <summary>
/// Arithmetic on numbers that come from files. Every product or sum of them goes through here:
/// an overflow is a rule broken, never a wrapped value.
/// </summary>
public static class CheckedMath
{
    /// <summary><c>a * b</c> of two non-negative numbers, or false when it exceeds <see cref="long.MaxValue"/>.</summary>
    public static bool TryMultiply(long a, long b, out long product)
    {
        long high = Math.BigMul(a, b, out long low);
        product = low;
        return high == 0 && low >= 0;
    }

    /// <summary><c>a + b</c> of two non-negative numbers, or false when it exceeds <see cref="long.MaxValue"/>.</summary>
    public static bool TryAdd(long a, long b, out long sum)
    {
        sum = unchecked(a + b);
        return sum >= 0;
    }

    /// <summary>The smallest multiple of <paramref name="alignment"/> (a power of two) at or above <paramref name="value"/>.</summary>
    public static bool TryAlign(long value, long alignment, out long aligned)
    {
        bool fits = TryAdd(value, alignment - 1, out long padded);
        aligned = padded & -alignment;
        return fits;
    }
}
