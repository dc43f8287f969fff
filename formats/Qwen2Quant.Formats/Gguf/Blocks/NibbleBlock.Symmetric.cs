using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

internal readonly partial struct NibbleBlock<TFormat>
{
    /// <summary>At <see cref="Effort.Fast"/> without importance this is ggml's own path, which then searches nothing.</summary>
    [SkipLocalsInit]
    private static void SearchSymmetric<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        if (effort == Effort.Fast && importance.IsEmpty)
        {
            EncodeBatch<T>(values, ref blocks);
            return;
        }

        Span<float> lanes = stackalloc float[32 * Search.Stride];
        Span<float> weightLanes = stackalloc float[32 * Search.Stride];
        Search.Transpose(values, 32, lanes);
        if (!importance.IsEmpty) Search.Transpose(importance, 32, weightLanes);
        ReadOnlySpan<float> weights = importance.IsEmpty ? SymmetricSearch.Ones : weightLanes;
        ReadOnlySpan<float> trials = SymmetricSearch.Trials(Zero, !importance.IsEmpty, effort);
        Span<float> scales = stackalloc float[Block32.Batch];
        Span<float> inverses = stackalloc float[Block32.Batch];
        Span<ushort> halves = stackalloc ushort[Block32.Batch];
        for (int g = 0; g < Block32.Batch; g += T.Width) SymmetricSearch.HalfScales<T>(in lanes[g], in weights[g], 32, Zero, !importance.IsEmpty, trials, ref scales[g]);

        Block32.StoredScales<T>(ref scales[0], ref inverses[0], ref halves[0]);
        StoreCodes<T>(in values[0], values.Length / 32, inverses, default, halves, default, ref blocks);
    }

    private static float FitSymmetric(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort)
    {
        Span<float> values = stackalloc float[32 * Search.Stride];
        Span<float> weightLanes = stackalloc float[32 * Search.Stride];
        Search.Transpose(block, 32, values);
        if (!importance.IsEmpty) Search.Transpose(importance, 32, weightLanes);
        ReadOnlySpan<float> weights = importance.IsEmpty ? SymmetricSearch.Ones : weightLanes;
        float scale = 0;
        SymmetricSearch.HalfScales<Lanes1>(in values[0], in weights[0], 32, Zero, !importance.IsEmpty, SymmetricSearch.Trials(Zero, !importance.IsEmpty, effort), ref scale);
        return scale;
    }
}
