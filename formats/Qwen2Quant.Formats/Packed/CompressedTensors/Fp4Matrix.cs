using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed.Float;

namespace Qwen2Quant.Formats.Packed.CompressedTensors;

/// <summary>E2M1 nibbles: <c>weight_packed</c> U8 [O, I / 2], the even input low; <c>weight_scale</c> a byte for each group, E4M3 for NVFP4, an exponent for MXFP4 (ggml's type in memory).</summary>
internal sealed class Fp4Matrix(string module, ElementType type, Shape shape, TensorEntry codes, TensorEntry scales) : PackedMatrix(module + ModuleParts.WeightSuffix, type, shape, codes)
{
    public override void ReadRows(ITensorSource source, int firstRow, int rowCount, Span<byte> rows)
    {
        int group = Type.ValuesPerBlock, groups = (int)Shape[1] / group, codeBytes = group / 2;
        byte[] nibbles = new byte[rowCount * groups * codeBytes], scale = new byte[rowCount * groups];
        source.ReadRaw(Codes, (long)firstRow * groups * codeBytes, nibbles);
        source.ReadRaw(scales, (long)firstRow * groups, scale);
        for (int at = 0; at < scale.Length; at++)
        {
            Span<byte> block = rows.Slice(at * Type.BytesPerBlock, Type.BytesPerBlock);
            block[0] = scale[at];
            ReadOnlySpan<byte> from = nibbles.AsSpan(at * codeBytes, codeBytes);
            if (Type is Nvfp4Type) from.CopyTo(block[1..]);
            else ToHalves(from, block[1..]);
        }
    }

    /// <summary>Neighbours in a byte to ggml's order: byte i holds values i and i + half.</summary>
    public static void ToHalves(ReadOnlySpan<byte> neighbours, Span<byte> halves)
    {
        int half = neighbours.Length;
        for (int i = 0; i < half; i++) halves[i] = (byte)(Value(neighbours, i) | (Value(neighbours, i + half) << 4));

        static int Value(ReadOnlySpan<byte> bytes, int i) => (bytes[i / 2] >> (i % 2 * 4)) & 15;
    }

    /// <summary>The inverse of <see cref="ToHalves"/>.</summary>
    public static void ToNeighbours(ReadOnlySpan<byte> halves, Span<byte> neighbours)
    {
        int half = halves.Length;
        for (int i = 0; i < half; i++) neighbours[i] = (byte)(Value(halves, 2 * i) | (Value(halves, (2 * i) + 1) << 4));

        static int Value(ReadOnlySpan<byte> bytes, int i) => i < bytes.Length ? bytes[i] & 15 : bytes[i - bytes.Length] >> 4;
    }
}
