using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

internal readonly partial struct CodebookBlock<TLayout>
{
    private static void EncodeSearched<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) where T : unmanaged, ILanes<T>
    {
        EncodeBatch<T>(values, importance, 0, Effort.Reference, ref blocks[0]);
    }
}
