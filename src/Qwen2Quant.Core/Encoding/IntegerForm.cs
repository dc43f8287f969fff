namespace Qwen2Quant.Core.Encoding;

/// <summary>
/// Rows of a type read as integers: value i is <c>scale[i / 32] * code[i] + origin[i / 32]</c>, up to the rounding of one product.
/// The forward pass multiplies such rows as 16-bit integers.
/// </summary>
public abstract unsafe class IntegerForm
{
    /// <summary>Values that share a scale.</summary>
    public const int ScaleLength = 32;

    /// <summary>Bound of |code|: with 14 bits of activation a sum of <see cref="ScaleLength"/> products stays below 2^31.</summary>
    public const int LargestCode = 4096;

    /// <summary>False for types whose origins are all zero; they write none.</summary>
    public abstract bool HasOrigins { get; }

    /// <summary>Unpacks whole blocks of one row.</summary>
    /// <param name="valueCount">A multiple of the type's block and of <see cref="ScaleLength"/>.</param>
    /// <param name="codes">[valueCount].</param>
    /// <param name="scales">[valueCount / 32], <paramref name="stride"/> floats apart.</param>
    /// <param name="origins">As <paramref name="scales"/>; not written unless <see cref="HasOrigins"/>.</param>
    public abstract void Unpack(byte* blocks, int valueCount, short* codes, float* scales, float* origins, int stride);
}
