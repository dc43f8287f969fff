using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>How matrices lie in a GPTQ checkpoint: for planners.</summary>
public static class GptqLayout
{
    /// <summary>The part that holds a matrix's codes.</summary>
    public const int CodesPart = 0;

    /// <summary>True where a matrix [O, I] can be packed as rows of a type: whole groups, and outputs that fill whole words of zeros.</summary>
    public static bool Fits(IntegerGridType type, Shape shape) => GptqLinear.Fits(type, shape);

    /// <summary>The tensors that a matrix is written as.</summary>
    /// <param name="name">Of the matrix, ending with <c>.weight</c>.</param>
    public static IReadOnlyList<OutputTensor> Parts(string name, IntegerGridType type, Shape shape) => GptqLinear.Parts(Module(name), type, shape);

    /// <summary>Where the rows of a matrix go.</summary>
    /// <param name="isV2">Stores zeros as they are, not less one.</param>
    /// <param name="parts">File and place of each of <see cref="Parts"/>.</param>
    public static IScatteredTarget Target(IntegerGridType type, Shape shape, bool isV2, IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts) => new GptqTarget(type, shape, isV2, parts);

    /// <summary>The module of a matrix.</summary>
    public static string Module(string name) => name[..^GptqLinear.WeightSuffix.Length];
}
