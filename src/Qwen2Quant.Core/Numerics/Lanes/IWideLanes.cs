namespace Qwen2Quant.Core.Numerics.Lanes;

/// <summary>
/// One double for each lane of a register of floats, for sums. Every operation rounds each lane alone, so that a kernel which adds value i to
/// sum i modulo a fixed count has the same bits at every width.
/// </summary>
public interface IWideLanes<TSelf, TLanes>
    where TSelf : unmanaged, IWideLanes<TSelf, TLanes>
    where TLanes : unmanaged, ILanes<TLanes>
{
    static abstract TSelf Load(ref readonly double source);

    static abstract void Store(TSelf value, ref double destination);

    static abstract TSelf Widen(TLanes lanes);

    static abstract TSelf operator +(TSelf left, TSelf right);

    /// <summary><c>left * right + addend</c>, rounded once.</summary>
    static abstract TSelf MultiplyAdd(TSelf left, TSelf right, TSelf addend);
}
