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

    /// <summary>What the stored codes exceed the codes of <see cref="Unpack"/> by, where <see cref="Dots"/> multiplies them as they are stored.</summary>
    public virtual int Zero => 0;

    /// <summary>Puts activations into the order in which <see cref="Dots"/> multiplies them.</summary>
    /// <param name="codes">[8 runs of 32].</param>
    /// <param name="arranged">As <paramref name="codes"/>.</param>
    public virtual void Arrange(short* codes, short* arranged) => throw new NotSupportedException();

    /// <summary>Products of one row of activations with rows of this type, without unpacking them: the bits that the matrix product gives.</summary>
    /// <param name="rowBytes">Bytes from row to row.</param>
    /// <param name="depth">Values of a row.</param>
    /// <param name="c">[rowCount].</param>
    /// <param name="accumulate">Adds to what <paramref name="c"/> holds.</param>
    public virtual void Dots(byte* blocks, long rowBytes, int rowCount, int depth, in IntegerInput input, float* c, bool accumulate) => throw new NotSupportedException();
}

/// <summary>One row of activations for <see cref="IntegerForm.Dots"/>: whole blocks of <see cref="IntegerForm.RunsPerBlock"/> runs of 32, zeros beyond the last run.</summary>
/// <param name="codes">Blocks as <see cref="IntegerForm.Arrange"/> leaves them.</param>
/// <param name="scales">Of each run, four times.</param>
/// <param name="zeros">Of each run, four times: the sum of its codes times <see cref="IntegerForm.Zero"/>.</param>
/// <param name="sums">Of each run's values, four times.</param>
public readonly unsafe ref struct IntegerInput(short* codes, float* scales, int* zeros, float* sums)
{
    public readonly short* Codes = codes;
    public readonly float* Scales = scales;
    public readonly int* Zeros = zeros;
    public readonly float* Sums = sums;
}
