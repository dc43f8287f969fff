using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>Turns groups back to back into lanes.</summary>
internal static class LaneTranspose
{
    /// <summary>Groups side by side.</summary>
    public const int Stride = Search.Stride;

    /// <summary>Value i of group g goes to <c>i * 16 + g</c>; missing groups become zeros. The length of a group is a multiple of 4.</summary>
    public static void Run(ReadOnlySpan<float> groups, int groupLength, Span<float> lanes)
    {
        int count = groups.Length / groupLength;
        if (count < Stride) lanes.Clear();
        int g = 0;
        if (Sse.IsSupported)
        {
            for (; g + 4 <= count; g += 4) Four(groups.Slice(g * groupLength, 4 * groupLength), groupLength, lanes.Slice(g, ((groupLength - 1) * Stride) + 4));
        }

        for (; g < count; g++)
        {
            for (int i = 0; i < groupLength; i++) lanes[(i * Stride) + g] = groups[(g * groupLength) + i];
        }
    }

    private static void Four(ReadOnlySpan<float> groups, int groupLength, Span<float> lanes)
    {
        ref float from = ref MemoryMarshal.GetReference(groups);
        ref float to = ref MemoryMarshal.GetReference(lanes);
        for (int i = 0; i < groupLength; i += 4)
        {
            Vector128<float> a = Vector128.LoadUnsafe(ref from, (nuint)i), b = Vector128.LoadUnsafe(ref from, (nuint)(groupLength + i));
            Vector128<float> c = Vector128.LoadUnsafe(ref from, (nuint)((2 * groupLength) + i)), d = Vector128.LoadUnsafe(ref from, (nuint)((3 * groupLength) + i));
            (Vector128<float> ab0, Vector128<float> ab2) = (Sse.UnpackLow(a, b), Sse.UnpackHigh(a, b));
            (Vector128<float> cd0, Vector128<float> cd2) = (Sse.UnpackLow(c, d), Sse.UnpackHigh(c, d));
            Sse.MoveLowToHigh(ab0, cd0).StoreUnsafe(ref to, (nuint)(i * Stride));
            Sse.MoveHighToLow(cd0, ab0).StoreUnsafe(ref to, (nuint)((i + 1) * Stride));
            Sse.MoveLowToHigh(ab2, cd2).StoreUnsafe(ref to, (nuint)((i + 2) * Stride));
            Sse.MoveHighToLow(cd2, ab2).StoreUnsafe(ref to, (nuint)((i + 3) * Stride));
        }
    }
}
