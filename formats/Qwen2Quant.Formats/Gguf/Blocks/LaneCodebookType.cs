using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>A written block format whose granules lie on a codebook.</summary>
internal interface ICodebookFormat : ICodecFormat
{
    /// <summary>See <see cref="ICodebookGrid.Round"/>.</summary>
    static abstract void Round(ReadOnlySpan<float> granule, ReadOnlySpan<float> metric, ReadOnlySpan<float> parameters, int firstIndex, Span<byte> codes);
}

/// <summary>A block type on a codebook, whose encoder runs at the chosen vector width.</summary>
internal sealed class LaneCodebookType<TFormat> : LaneCodecType<TFormat>, ICodebookGrid where TFormat : struct, ICodebookFormat
{
    public void Round(ReadOnlySpan<float> granule, ReadOnlySpan<float> metric, ReadOnlySpan<float> parameters, int firstIndex, Span<byte> codes) =>
        TFormat.Round(granule, metric, parameters, firstIndex, codes);
}
