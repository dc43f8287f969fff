using System.Runtime.InteropServices;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Mlx;

/// <summary>
/// One packed module of an MLX checkpoint, a linear or an embedding of I inputs and O outputs in G groups: <c>weight</c> U32 [O, I x bits / 32], <c>scales</c> and
/// <c>biases</c> [O, G]; of a stack of experts one slice of each.
/// </summary>
internal sealed class MlxMatrix(string name, AffineGridType type, Shape shape, TensorEntry codes, TensorEntry scales, TensorEntry biases) : PackedMatrix(name, type, shape, codes)
{
    public const string ScalesSuffix = ".scales", BiasesSuffix = ".biases";

    /// <summary>The tensors that a module of that type and shape [O, I] is written as.</summary>
    public static OutputTensor[] Parts(string module, AffineGridType type, Shape shape)
    {
        Shape groups = new(shape[0], shape[1] / type.GroupLength);
        return
        [
            new OutputTensor(module + ModuleParts.WeightSuffix, PlainTypes.U32, new Shape(shape[0], shape[1] / BitFields.WordRun * type.Bits)),
            new OutputTensor(module + ScalesSuffix, type.ScaleType, groups),
            new OutputTensor(module + BiasesSuffix, type.ScaleType, groups),
        ];
    }

    public override void ReadRows(ITensorSource source, int firstRow, int rowCount, Span<byte> rows)
    {
        AffineGridType grid = (AffineGridType)Type;
        int groups = (int)Shape[1] / grid.GroupLength, codeBytes = grid.GroupLength / BitFields.Run * grid.Bits;
        long first = firstRow;
        byte[] packed = new byte[rowCount * groups * codeBytes];
        ushort[] scale = new ushort[rowCount * groups], bias = new ushort[scale.Length];
        source.ReadRaw(Codes, first * groups * codeBytes, packed);
        source.ReadRaw(scales, first * groups * sizeof(ushort), MemoryMarshal.AsBytes(scale.AsSpan()));
        source.ReadRaw(biases, first * groups * sizeof(ushort), MemoryMarshal.AsBytes(bias.AsSpan()));
        for (int at = 0; at < scale.Length; at++)
        {
            Span<byte> block = rows.Slice(at * grid.BytesPerBlock, grid.BytesPerBlock);
            MemoryMarshal.Write(block, scale[at]);
            MemoryMarshal.Write(block[sizeof(ushort)..], bias[at]);
            packed.AsSpan(at * codeBytes, codeBytes).CopyTo(block[AffineGridType.CodesOffset..]);
        }
    }
}
