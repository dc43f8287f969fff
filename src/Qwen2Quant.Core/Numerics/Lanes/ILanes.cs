namespace Qwen2Quant.Core.Numerics.Lanes;

/// <summary>
/// One vector register as <see cref="Width"/> lanes of 32 bits, read as floats by the arithmetic operators and as integers by the members that say so.
/// A kernel written once over <typeparamref name="TSelf"/> runs at every width; the width of one is its scalar form.
/// All implementations give the same bits lane by lane: the operators are never fused, <see cref="MultiplyAdd"/> always is, there is no approximate
/// instruction, and minima and maxima treat NaN alike. Only <see cref="SumAcross"/> depends on the width.
/// </summary>
public interface ILanes<TSelf> where TSelf : unmanaged, ILanes<TSelf>
{
    static abstract int Width { get; }

    /// <summary>What people call this width: <c>scalar</c>, <c>vector128</c>, <c>avx2</c>, <c>avx512</c>.</summary>
    static abstract string Name { get; }

    static abstract TSelf Broadcast(float value);

    static abstract TSelf BroadcastInt(int value);

    static abstract TSelf Load(ref readonly float source);

    static abstract TSelf LoadBytes(ref readonly byte source);

    static abstract TSelf LoadSBytes(ref readonly byte source);

    static abstract TSelf LoadUShorts(ref readonly ushort source);

    static abstract void Store(TSelf value, ref float destination);

    /// <summary>Stores the low byte of each integer.</summary>
    static abstract void StoreBytes(TSelf value, ref byte destination);

    /// <summary>Stores integers of 0 to 65535 as 16 bits each.</summary>
    static abstract void StoreUShorts(TSelf value, ref ushort destination);

    static abstract TSelf operator +(TSelf left, TSelf right);

    static abstract TSelf operator -(TSelf left, TSelf right);

    static abstract TSelf operator *(TSelf left, TSelf right);

    static abstract TSelf operator /(TSelf left, TSelf right);

    /// <summary><c>left * right + addend</c>, rounded once.</summary>
    static abstract TSelf MultiplyAdd(TSelf left, TSelf right, TSelf addend);

    static abstract TSelf operator &(TSelf left, TSelf right);

    static abstract TSelf operator |(TSelf left, TSelf right);

    /// <summary><c>left &lt; right ? left : right</c>: the right operand where either is NaN.</summary>
    static abstract TSelf Min(TSelf left, TSelf right);

    /// <summary><c>left > right ? left : right</c>: the right operand where either is NaN.</summary>
    static abstract TSelf Max(TSelf left, TSelf right);

    static abstract TSelf Sqrt(TSelf value);

    /// <summary>All bits set in lanes where <c>left > right</c>, none elsewhere.</summary>
    static abstract TSelf Greater(TSelf left, TSelf right);

    /// <summary>All bits set in lanes where the floats are equal, none elsewhere.</summary>
    static abstract TSelf Equal(TSelf left, TSelf right);

    /// <summary>All bits set in lanes where the signed integer left is greater, none elsewhere.</summary>
    static abstract TSelf GreaterInt(TSelf left, TSelf right);

    /// <summary>Lanes of <paramref name="yes"/> where <paramref name="mask"/> is set, of <paramref name="no"/> elsewhere.</summary>
    static abstract TSelf Select(TSelf mask, TSelf yes, TSelf no);

    /// <summary>The top bit of each lane; lane 0 is bit 0.</summary>
    static abstract uint TopBits(TSelf value);

    static abstract TSelf AddInt(TSelf left, TSelf right);

    static abstract TSelf ShiftLeft(TSelf value, int count);

    /// <summary>Logical shift of the lanes as unsigned integers.</summary>
    static abstract TSelf ShiftRight(TSelf value, int count);

    /// <summary>Truncates to integers; the values lie within the range of an <see cref="int"/>.</summary>
    static abstract TSelf ToInt(TSelf value);

    /// <summary>Converts signed integers to floats.</summary>
    static abstract TSelf ToFloat(TSelf value);

    /// <summary>Lane <c>i</c> is <c>table[index[i]]</c> of a table of 16 floats; indices are 0 to 15.</summary>
    static abstract TSelf Lookup16(ref readonly float table, TSelf index);

    /// <summary>The greatest lane of values that are not NaN.</summary>
    static abstract float MaxAcross(TSelf value);

    /// <summary>The least lane of values that are not NaN.</summary>
    static abstract float MinAcross(TSelf value);

    /// <summary>The sum of the lanes, added half to half: the order, and so the rounding, follows from the width.</summary>
    static abstract float SumAcross(TSelf value);
}
