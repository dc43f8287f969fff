using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>Sums of one group whose values lie along the lanes: value i is added to partial sum i modulo 16, and those are added in one order at every width.</summary>
internal static class SixteenSums
{
    public const int Count = 16;

    /// <summary>The sum of 16 partial sums, half to half as <see cref="ILanes{T}.SumAcross"/> adds. They are overwritten.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Fold<T>(ref float parts) where T : unmanaged, ILanes<T>
    {
        for (int half = Count / 2; half >= T.Width; half /= 2)
        {
            for (int part = 0; part < half; part += T.Width)
            {
                T.Store(Block32.At<T>(in parts, part) + Block32.At<T>(in parts, part + half), ref Unsafe.Add(ref parts, part));
            }
        }

        return T.SumAcross(T.Load(in parts));
    }
}
