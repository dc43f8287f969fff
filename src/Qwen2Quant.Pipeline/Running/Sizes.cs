using System.Globalization;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Pipeline.Running;

/// <summary>Sizes as people type them: decimal units (kB, MB, GB), binary ones (KiB, MiB, GiB), or plain bytes.</summary>
public static class Sizes
{
    private static readonly (string Suffix, long Bytes)[] Units =
    [
        ("KIB", 1L << 10), ("MIB", 1L << 20), ("GIB", 1L << 30), ("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("B", 1), ("", 1),
    ];

    /// <exception cref="QuantException">Usage: it is no size.</exception>
    public static long Parse(string text, string option)
    {
        string upper = text.Trim().ToUpperInvariant();
        (string suffix, long unit) = Units.First(known => upper.EndsWith(known.Suffix, StringComparison.Ordinal));
        bool isNumber = double.TryParse(upper.AsSpan(0, upper.Length - suffix.Length), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double count);
        double bytes = count * unit;
        if (isNumber && bytes is >= 1 and <= 1e18) return (long)bytes;
        throw new QuantException(ErrorKind.Usage, $"{option} is not a size") { Found = text, Expected = "for example 5GB, 500MB or 4GiB" };
    }
}
