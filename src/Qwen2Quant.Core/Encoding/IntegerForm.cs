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

    /// <summary>Runs of a block of depth: as many as one step of a result's sum takes.</summary>
    public const int RunsPerBlock = 8;

    /// <summary>True when <see cref="Dots"/> is there.</summary>
    public virtual bool HasDots => false;

    /// <summary>Products of one row of activations with rows of this type, without unpacking them: the bits that the matrix product gives.</summary>
    /// <param name="rowBytes">Bytes from row to row.</param>
    /// <param name="depth">Values of a row.</param>
    /// <param name="c">[rowCount].</param>
    /// <param name="accumulate">Adds to what <paramref name="c"/> holds.</param>
    public virtual void Dots(byte* blocks, long rowBytes, int rowCount, int depth, in IntegerInput input, float* c, bool accumulate) => throw new NotSupportedException();
}

/// <summary>One row of activations as integers: blocks of <see cref="IntegerForm.RunsPerBlock"/> runs of 32 codes with a scale each, and the sum of each run's values.</summary>
/// <param name="codeStride">Shorts from block to block of <paramref name="codes"/>.</param>
/// <param name="scaleStride">Floats from block to block of <paramref name="scales"/>.</param>
/// <param name="sums">Back to back.</param>
public readonly unsafe ref struct IntegerInput(short* codes, long codeStride, float* scales, long scaleStride, float* sums)
{
    public readonly short* Codes = codes;
    public readonly long CodeStride = codeStride;
    public readonly float* Scales = scales;
    public readonly long ScaleStride = scaleStride;
    public readonly float* Sums = sums;
}
