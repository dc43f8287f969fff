using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Gptq;

/// <summary>
/// One packed module of a GPTQ checkpoint, a linear of I inputs and O outputs in G groups: <c>qweight</c> I32 [I x bits / 32, O], words along the inputs;
/// <c>qzeros</c> I32 [G, O x bits / 32], words along the outputs; <c>scales</c> F16 [G, O]; <c>g_idx</c> I32 [I], the group of each input.
/// In memory it is rows of <see cref="IntegerGridType"/>, one an output: a row's 32-bit words are a column of <c>qweight</c>.
/// </summary>
/// <param name="Name">Of the module, without <c>.weight</c>.</param>
/// <param name="Shape">[O, I].</param>
/// <param name="ColumnOrder">For each place in a stored row the input that it holds, by group and by input inside a group; null where inputs are in their order.</param>
internal sealed record GptqLinear(string Name, IntegerGridType Type, Shape Shape, TensorEntry Codes, TensorEntry Zeros, TensorEntry Scales, int[]? ColumnOrder)
{
    public const string CodesSuffix = ".qweight", ZerosSuffix = ".qzeros", ScalesSuffix = ".scales", GroupsSuffix = ".g_idx";

    /// <summary>Outputs that fill whole words of every part.</summary>
    public const int RowGranule = BitFields.WordRun;

    public int RowCount => (int)Shape[0];

    public int RowLength => (int)Shape[1];

    public int GroupCount => RowLength / Type.GroupLength;

    /// <summary>The tensors that a module of that type and shape [O, I] is written as, in the order of names that GPTQModel's files have in a state dictionary.</summary>
    public static OutputTensor[] Parts(string module, IntegerGridType type, Shape shape)
    {
        (long rows, long columns) = (shape[0], shape[1]);
        long groups = columns / type.GroupLength;
        return
        [
            new OutputTensor(module + CodesSuffix, PlainTypes.I32, new Shape(columns / BitFields.WordRun * type.Bits, rows)),
            new OutputTensor(module + ZerosSuffix, PlainTypes.I32, new Shape(groups, rows / BitFields.WordRun * type.Bits)),
            new OutputTensor(module + ScalesSuffix, type.ScaleType, new Shape(groups, rows)),
            new OutputTensor(module + GroupsSuffix, PlainTypes.I32, new Shape(columns)),
        ];
    }

    /// <summary>True where a matrix [O, I] can be packed so.</summary>
    public static bool Fits(IntegerGridType type, Shape shape) => shape.Rank == 2 && shape[0] % RowGranule == 0 && shape[1] % type.GroupLength == 0;
}
