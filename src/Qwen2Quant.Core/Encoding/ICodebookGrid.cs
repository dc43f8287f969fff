namespace Qwen2Quant.Core.Encoding;

/// <summary>
/// A grid whose values are chosen a granule at a time, because only some combinations of codes exist. Codes are still one byte a value, and
/// <see cref="IQuantGrid.GetLevels"/> says what each stands for.
/// </summary>
public interface ICodebookGrid : IQuantGrid
{
    /// <summary>The permitted codes of one granule that are nearest under stored parameters.</summary>
    /// <param name="granule"><see cref="GridShape.GranuleLength"/> values, k.</param>
    /// <param name="metric">Empty for plain distance, k weights, or a symmetric positive definite k x k matrix M, row after row: the least e'Me is sought.</param>
    /// <param name="firstIndex">Index in the block of the granule's first value.</param>
    /// <param name="codes">Receives k codes.</param>
    void Round(ReadOnlySpan<float> granule, ReadOnlySpan<float> metric, ReadOnlySpan<float> parameters, int firstIndex, Span<byte> codes);
}
