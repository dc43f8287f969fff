using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>How a matrix [O, I] of some element type lies in the tensors of a packed checkpoint: for planners.</summary>
public abstract class PackedLayout
{
    /// <summary>True where a matrix can be packed as rows of a type.</summary>
    public abstract bool Fits(ElementType type, Shape shape);

    /// <summary>Where the layout has the matrices of all experts as one with a leading dimension: the name of that one and the expert's index; else null.</summary>
    /// <param name="name">Of the expert's matrix.</param>
    public virtual (string Name, int Index)? StackOf(string name) => null;

    /// <summary>Outputs that a matrix must have a multiple of, for messages.</summary>
    public virtual int OutputMultiple => 1;

    /// <summary>The tensors that a matrix is written as, the one with its codes first.</summary>
    /// <param name="name">Of the matrix, ending with <c>.weight</c>.</param>
    public abstract IReadOnlyList<OutputTensor> Parts(string name, ElementType type, Shape shape);

    /// <summary>Where the rows of a matrix go.</summary>
    /// <param name="parts">File and place of each of <see cref="Parts"/>.</param>
    public abstract IScatteredTarget Target(ElementType type, Shape shape, IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts);

    /// <summary>The module of a matrix.</summary>
    public static string Module(string name) => name[..^ModuleParts.WeightSuffix.Length];
}
