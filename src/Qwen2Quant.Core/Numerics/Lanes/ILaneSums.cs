namespace Qwen2Quant.Core.Numerics.Lanes;

/// <summary>
/// One sum in double precision for each lane of a register. Every operation rounds each lane alone, so that a kernel which gives value i to
/// sum i modulo a fixed count has the same bits at every width.
/// </summary>
public interface ILaneSums<TSelf, TLanes>
    where TSelf : unmanaged, ILaneSums<TSelf, TLanes>
    where TLanes : unmanaged, ILanes<TLanes>
{
    static abstract TSelf Load(ref readonly double source);

    static abstract void Store(TSelf sums, ref double destination);

    /// <summary>Adds the lanes, widened.</summary>
    static abstract TSelf Add(TSelf sums, TLanes lanes);

    /// <summary>Adds the products of the lanes, widened before they are multiplied and rounded once.</summary>
    static abstract TSelf AddProduct(TSelf sums, TLanes left, TLanes right);
}
