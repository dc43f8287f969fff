namespace Qwen2Quant.Validation.Numerics;

/// <summary>
/// 16 floats held in registers of one width, with sums of them in 16 doubles, kept as two halves of 8.
/// Every operation rounds each lane alone, so all widths give the same bits.
/// </summary>
internal unsafe interface ILanes<TSelf, TSums>
    where TSelf : struct, ILanes<TSelf, TSums>
    where TSums : struct
{
    static abstract TSelf Load(float* source);

    static abstract void Store(TSelf lanes, float* destination);

    static abstract void Store(TSums sums, double* destination);

    static abstract TSelf Broadcast(float value);

    static abstract TSelf Subtract(TSelf left, TSelf right);

    /// <summary>The larger of each lane; either one where a lane is NaN.</summary>
    static abstract TSelf Max(TSelf left, TSelf right);

    /// <summary><c>left * right + addend</c>, rounded once.</summary>
    static abstract TSelf MultiplyAdd(TSelf left, TSelf right, TSelf addend);

    /// <summary>Adds the low bits of <paramref name="steps"/>, taken as an integer, to the exponent of <paramref name="value"/>.</summary>
    static abstract TSelf AddToExponent(TSelf value, TSelf steps);

    /// <summary>Adds lanes 0 to 7, widened.</summary>
    static abstract TSums AddLow(TSums sums, TSelf lanes);

    /// <summary>Adds lanes 8 to 15, widened.</summary>
    static abstract TSums AddHigh(TSums sums, TSelf lanes);

    /// <summary>Adds the products of lanes 0 to 7, widened before they are multiplied.</summary>
    static abstract TSums AddProductLow(TSums sums, TSelf left, TSelf right);

    /// <summary>Adds the products of lanes 8 to 15, widened before they are multiplied.</summary>
    static abstract TSums AddProductHigh(TSums sums, TSelf left, TSelf right);
}
