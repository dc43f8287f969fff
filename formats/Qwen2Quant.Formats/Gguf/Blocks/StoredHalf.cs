using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>Scales as a half holds them: searches choose among these.</summary>
internal static class StoredHalf
{
    public const float Largest = 65504;

    /// <summary>The nearest finite half, as a float.</summary>
    public static float Round(float scale) => (float)(Half)Math.Clamp(scale, -Largest, Largest);

    /// <summary>As <see cref="Round(float)"/>, lane by lane.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Round<T>(T scale) where T : unmanaged, ILanes<T> => HalfRows.FromHalfBits(HalfRows.ToHalfBits(LaneMath.Clamp(scale, -Largest, Largest)));

    /// <summary><c>1 / scale</c>, and 0 where that is not finite.</summary>
    public static float Inverse(float scale)
    {
        float inverse = 1 / scale;
        return float.IsFinite(inverse) ? inverse : 0;
    }
}
