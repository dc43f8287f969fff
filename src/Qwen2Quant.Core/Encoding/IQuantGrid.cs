namespace Qwen2Quant.Core.Encoding;

/// <summary>The shape of a grid.</summary>
/// <param name="BlockLength">Values of a row that share parameters.</param>
/// <param name="SubBlockLength">Values inside a block that share their levels; equal to <paramref name="BlockLength"/> where there are no sub-blocks.</param>
/// <param name="GranuleLength">Smallest run of values whose codes are chosen independently: 1 for scalar grids.</param>
/// <param name="CodeCount">Codes of one value: 0 to <paramref name="CodeCount"/> - 1.</param>
/// <param name="ParameterCount">Floats that describe one block as it is stored.</param>
public readonly record struct GridShape(int BlockLength, int SubBlockLength, int GranuleLength, int CodeCount, int ParameterCount);

/// <summary>
/// What an integer code means. Parameters are floats in their stored precision (halves, 6-bit sub-scales already rounded):
/// the stored ones are the truth, and codes are chosen under them.
/// </summary>
public interface IQuantGrid
{
    GridShape Shape { get; }

    /// <summary>Fits the parameters of one block to its values. <paramref name="importance"/> is empty or one weight for each value.</summary>
    void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters);

    /// <summary>The levels of sub-block <paramref name="subBlock"/> under stored parameters.</summary>
    Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock);

    /// <summary>
    /// The value nearest to <paramref name="value"/> that a parameter can have as it is stored; NaN for one that is not to be changed alone. With codes and the other
    /// parameters fixed, the values that codes stand for are linear in each parameter that is not NaN here.
    /// </summary>
    float Store(int parameter, float value) => float.NaN;

    /// <summary>The sub-blocks whose levels depend on a parameter.</summary>
    (int First, int Count) SubBlocksOf(int parameter) => (0, Shape.BlockLength / Shape.SubBlockLength);
}

/// <summary>How codes and parameters of one block lie in its bytes. <c>Pack</c> and <c>Unpack</c> are inverse, exactly.</summary>
public interface IBlockLayout
{
    void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block);

    void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters);
}

/// <summary>A ggml block type: for these the grid and its one layout share a file.</summary>
public interface IBlockCodec : IQuantGrid, IBlockLayout;
