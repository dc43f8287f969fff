using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// A fit of least error decodes values x to y with <c>sum wxy = sum wy^2</c>: y is shorter than x by the share e of <c>sum wx^2</c> that is lost. A larger step gives
/// that back, at the cost of up to e of the error once more.
/// </summary>
internal static class Gain
{
    /// <summary>Share of the lost gain that is given back: it costs four fifths of the error that all of it would, and the last tenth changes a model's divergence by less than can be measured.</summary>
    public const float Restored = 0.9f;

    /// <summary>What a step of least error is multiplied by.</summary>
    /// <param name="squares">Sum of wx^2.</param>
    /// <param name="fitted">Sum of wxy under that step, greater than zero.</param>
    public static double Factor(double squares, double fitted) => 1 + (Restored * ((squares / fitted) - 1));

    /// <summary>As <see cref="Factor(double, double)"/>, lane by lane; 1 where <paramref name="fitted"/> is not greater than zero.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static T Factor<T>(T squares, T fitted) where T : unmanaged, ILanes<T>
    {
        T one = T.Broadcast(1);
        return T.Select(T.Greater(fitted, T.Broadcast(0)), T.MultiplyAdd((squares / fitted) - one, T.Broadcast(Restored), one), one);
    }
}
