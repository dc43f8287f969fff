using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Core.Numerics.Lanes;

/// <summary>Sixteen sums by AVX-512.</summary>
public readonly struct LaneSums512(Vector512<double> low, Vector512<double> high) : ILaneSums<LaneSums512, Lanes512>
{
    private readonly Vector512<double> _low = low;
    private readonly Vector512<double> _high = high;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static LaneSums512 Load(ref readonly double source) => new(Vector512.LoadUnsafe(in source), Vector512.LoadUnsafe(in source, 8));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(LaneSums512 sums, ref double destination)
    {
        sums._low.StoreUnsafe(ref destination);
        sums._high.StoreUnsafe(ref destination, 8);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static LaneSums512 Add(LaneSums512 sums, Lanes512 lanes) => new(Avx512F.Add(sums._low, Avx512F.ConvertToVector512Double(lanes.Value.GetLower())), Avx512F.Add(sums._high, Avx512F.ConvertToVector512Double(lanes.Value.GetUpper())));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static LaneSums512 AddProduct(LaneSums512 sums, Lanes512 left, Lanes512 right) =>
        new(Avx512F.FusedMultiplyAdd(Avx512F.ConvertToVector512Double(left.Value.GetLower()), Avx512F.ConvertToVector512Double(right.Value.GetLower()), sums._low), Avx512F.FusedMultiplyAdd(Avx512F.ConvertToVector512Double(left.Value.GetUpper()), Avx512F.ConvertToVector512Double(right.Value.GetUpper()), sums._high));
}
