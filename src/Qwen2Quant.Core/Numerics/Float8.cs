namespace Qwen2Quant.Core.Numerics;

/// <summary>The two 8-bit floating-point formats of the OCP specification (OFP8).</summary>
public static class Float8
{
    public static float FromE4M3(byte bits)
    {
        int exponent = (bits >> 3) & 15;
        int mantissa = bits & 7;
        if ((bits & 0x7f) == 0x7f) return float.NaN;
        float magnitude = exponent == 0 ? MathF.ScaleB(mantissa, -9) : MathF.ScaleB(8 + mantissa, exponent - 10);
        return (bits & 0x80) != 0 ? -magnitude : magnitude;
    }

    /// <summary>The largest finite magnitude of E4M3.</summary>
    public const float LargestE4M3 = 448;

    /// <summary>The nearest E4M3 value, ties to even; magnitudes beyond the largest become it, since an overflow would be NaN.</summary>
    public static byte ToE4M3(float value)
    {
        float magnitude = MathF.Min(MathF.Abs(value), LargestE4M3);
        int code;
        if (magnitude < 0.015625f)
        {
            // Steps of 2^-9 below the smallest normal, 2^-6; 8 steps are that.
            code = (int)MathF.Round(magnitude * 512);
        }
        else
        {
            uint bits = BitConverter.SingleToUInt32Bits(magnitude);
            bits += 0x7FFFF + ((bits >> 20) & 1);
            code = (int)(bits >> 20) - ((127 - 7) << 3);
        }

        return (byte)((uint)code | ((BitConverter.SingleToUInt32Bits(value) >> 24) & 0x80));
    }

    // The layout is a half cut to its upper byte.
    public static float FromE5M2(byte bits) => (float)BitConverter.UInt16BitsToHalf((ushort)(bits << 8));
}
