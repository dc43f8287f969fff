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

    // The layout is a half cut to its upper byte.
    public static float FromE5M2(byte bits) => (float)BitConverter.UInt16BitsToHalf((ushort)(bits << 8));
}
