using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

internal readonly partial struct NibbleBlock<TFormat>
{
    private static void SearchAffine<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        if (importance.IsEmpty) EncodeBatch<T>(values, ref blocks);
        else EncodeWeighted<T>(values, importance, 0, ref blocks);
    }
}
