using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>Fits by encoding: for types whose search ends with the stored parameters.</summary>
internal static class SearchedFit
{
    /// <summary>Encodes one block at the processor's width; every width gives the same bytes.</summary>
    public static void Encode<TFormat>(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<byte> encoded) where TFormat : struct, ICodecFormat
    {
        if (Simd.Level >= SimdLevel.Avx512) TFormat.EncodeBatch<Lanes512>(block, importance, 0, effort, ref encoded[0]);
        else if (Simd.Level >= SimdLevel.Avx2) TFormat.EncodeBatch<Lanes256>(block, importance, 0, effort, ref encoded[0]);
        else if (Simd.Level >= SimdLevel.Vector128) TFormat.EncodeBatch<Lanes128>(block, importance, 0, effort, ref encoded[0]);
        else TFormat.EncodeBatch<Lanes1>(block, importance, 0, effort, ref encoded[0]);
    }
}
