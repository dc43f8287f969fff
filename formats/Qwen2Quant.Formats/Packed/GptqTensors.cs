using System.Globalization;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>
/// GPTQ's layout of a matrix [out, in] (AutoGPTQ, GPTQModel): <c>qweight</c> [in * bits / 32, out] and <c>qzeros</c> [groups, out * bits / 32] of 32-bit words,
/// <c>scales</c> [groups, out], <c>g_idx</c> [in]. The words of a column of qweight, one below the other, are the stream of bits of a row of <see cref="IntegerGroup"/>.
/// </summary>
/// <param name="IsFirstVersion">qzeros holds zero - 1 (<c>checkpoint_format: gptq</c>), not the zero (<c>gptq_v2</c>).</param>
public sealed record GptqMatrix(string Module, int RowCount, int RowLength, IntegerGrid Grid, bool IsFirstVersion)
{
    public const string Weights = ".qweight", Zeros = ".qzeros", Scales = ".scales", GroupIndex = ".g_idx";

    public int GroupCount => RowLength / Grid.GroupLength;

    public IntegerGroup Type => IntegerGroup.Of(Grid);

    /// <summary>The four tensors, in the order of <see cref="Pack"/>.</summary>
    public IReadOnlyList<OutputTensor> Tensors =>
    [
        new(Module + Weights, PlainTypes.I32, new Shape(RowLength / 32 * Grid.Bits, RowCount)),
        new(Module + Zeros, PlainTypes.I32, new Shape(GroupCount, RowCount / 32 * Grid.Bits)),
        new(Module + Scales, Grid.Scale, new Shape(GroupCount, RowCount)),
        new(Module + GroupIndex, PlainTypes.I32, new Shape(RowLength)),
    ];

    /// <summary>Bytes of the four tensors.</summary>
    public long ByteLength => Tensors.Sum(tensor => tensor.ByteLength);

    /// <summary>Packs rows of <see cref="Type"/>, whole.</summary>
    /// <returns>The bytes of each of <see cref="Tensors"/>.</returns>
    public byte[][] Pack(ReadOnlySpan<byte> rows)
    {
        byte[][] packed = [.. Tensors.Select(tensor => new byte[tensor.ByteLength])];
        Span<uint> words = MemoryMarshal.Cast<byte, uint>(packed[0].AsSpan()), zeros = MemoryMarshal.Cast<byte, uint>(packed[1].AsSpan());
        int blockBytes = Type.BytesPerBlock, scaleBytes = Grid.Scale.BytesPerBlock, wordsPerGroup = Grid.GroupLength / 32 * Grid.Bits;
        for (int row = 0; row < RowCount; row++)
        {
            for (int group = 0; group < GroupCount; group++)
            {
                ReadOnlySpan<byte> block = rows.Slice(((row * GroupCount) + group) * blockBytes, blockBytes);
                block[..scaleBytes].CopyTo(packed[2].AsSpan(((group * RowCount) + row) * scaleBytes));
                SetField(zeros.Slice(group * (RowCount / 32 * Grid.Bits), RowCount / 32 * Grid.Bits), row, (uint)(block[scaleBytes] - (IsFirstVersion ? 1 : 0)));
                ReadOnlySpan<byte> codes = block[(scaleBytes + 1)..];
                for (int word = 0; word < wordsPerGroup; word++) words[(((group * wordsPerGroup) + word) * RowCount) + row] = BitConverter.ToUInt32(codes[(4 * word)..]);
            }
        }

        Span<int> index = MemoryMarshal.Cast<byte, int>(packed[3].AsSpan());
        for (int column = 0; column < RowLength; column++) index[column] = column / Grid.GroupLength;
        return packed;
    }

    /// <summary>Rows of <see cref="Type"/> from the bytes of the first three tensors; what <see cref="Pack"/> undoes exactly.</summary>
    public void Unpack(ReadOnlySpan<byte> weights, ReadOnlySpan<byte> zeros, ReadOnlySpan<byte> scales, Span<byte> rows)
    {
        ReadOnlySpan<uint> words = MemoryMarshal.Cast<byte, uint>(weights), zeroWords = MemoryMarshal.Cast<byte, uint>(zeros);
        int blockBytes = Type.BytesPerBlock, scaleBytes = Grid.Scale.BytesPerBlock, wordsPerGroup = Grid.GroupLength / 32 * Grid.Bits;
        for (int row = 0; row < RowCount; row++)
        {
            for (int group = 0; group < GroupCount; group++)
            {
                Span<byte> block = rows.Slice(((row * GroupCount) + group) * blockBytes, blockBytes);
                scales.Slice(((group * RowCount) + row) * scaleBytes, scaleBytes).CopyTo(block);
                block[scaleBytes] = (byte)ZeroAt(zeroWords, group, row);
                Span<byte> codes = block[(scaleBytes + 1)..];
                for (int word = 0; word < wordsPerGroup; word++) BitConverter.TryWriteBytes(codes[(4 * word)..], words[(((group * wordsPerGroup) + word) * RowCount) + row]);
            }
        }
    }

    /// <summary>Values in the order of the inputs, where columns of a group are scattered (<c>desc_act</c>).</summary>
    /// <param name="groupOf">g_idx: the group of each column.</param>
    /// <param name="values">[RowCount, RowLength].</param>
    public void Decode(ReadOnlySpan<byte> weights, ReadOnlySpan<byte> zeros, ReadOnlySpan<byte> scales, ReadOnlySpan<int> groupOf, Span<float> values)
    {
        ReadOnlySpan<uint> words = MemoryMarshal.Cast<byte, uint>(weights), zeroWords = MemoryMarshal.Cast<byte, uint>(zeros);
        float[] scaleValues = new float[GroupCount * RowCount];
        Grid.Scale.Decode(scales, scaleValues);
        uint[] stream = new uint[RowLength / 32 * Grid.Bits];
        for (int row = 0; row < RowCount; row++)
        {
            for (int word = 0; word < stream.Length; word++) stream[word] = words[(word * RowCount) + row];
            for (int column = 0; column < RowLength; column++)
            {
                int group = groupOf[column];
                values[(row * RowLength) + column] = scaleValues[(group * RowCount) + row] * ((int)Field(stream, column) - ZeroAt(zeroWords, group, row));
            }
        }
    }

    /// <summary>The zero of a group. A first version's zero of 0 was stored as all ones, which wraps.</summary>
    private int ZeroAt(ReadOnlySpan<uint> zeros, int group, int row)
    {
        int rowWords = RowCount / 32 * Grid.Bits;
        uint stored = Field(zeros.Slice(group * rowWords, rowWords), row);
        return (int)((stored + (IsFirstVersion ? 1u : 0)) & (uint)Grid.GreatestCode);
    }

    private uint Field(ReadOnlySpan<uint> stream, int index)
    {
        int bit = index * Grid.Bits;
        ulong two = stream[bit / 32] | ((bit / 32) + 1 < stream.Length ? (ulong)stream[(bit / 32) + 1] << 32 : 0);
        return (uint)(two >> (bit % 32)) & (uint)Grid.GreatestCode;
    }

    private void SetField(Span<uint> stream, int index, uint value)
    {
        int bit = index * Grid.Bits;
        ulong shifted = (ulong)(value & (uint)Grid.GreatestCode) << (bit % 32);
        stream[bit / 32] |= (uint)shifted;
        if (shifted >> 32 != 0) stream[(bit / 32) + 1] |= (uint)(shifted >> 32);
    }

    /// <summary>Finds the matrix of a module among the tensors of a checkpoint, and holds their types and shapes against one another.</summary>
    /// <param name="settings">What the configuration says of the module.</param>
    /// <exception cref="QuantException">A tensor is missing, or has another type or shape than the configuration asks for.</exception>
    public static GptqMatrix Find(string module, GptqSettings settings, bool isFirstVersion, ITensorSource source, string path)
    {
        TensorEntry weights = Entry(Weights), scales = Entry(Scales);
        int rowCount = weights.Shape.Rank == 2 ? checked((int)weights.Shape[1]) : throw Wrong(weights, "2 dimensions");
        long rowLength = checked(weights.Shape[0] * 32 / settings.Bits);
        if (weights.Shape[0] * 32 % settings.Bits != 0 || rowLength % 32 != 0 || rowCount % 32 != 0) throw Wrong(weights, $"whole words of {settings.Bits} bits");
        long groupLength = settings.GroupLength == -1 ? rowLength : settings.GroupLength;
        if (rowLength % groupLength != 0) throw Wrong(weights, string.Create(CultureInfo.InvariantCulture, $"rows that are a multiple of the group, {groupLength}"));
        if (!ReferenceEquals(scales.Type, PlainTypes.F16) && !ReferenceEquals(scales.Type, PlainTypes.BF16) && !ReferenceEquals(scales.Type, PlainTypes.F32)) throw Wrong(scales, "F16, BF16 or F32");
        GptqMatrix matrix = new(module, rowCount, checked((int)rowLength), new IntegerGrid(settings.Bits, checked((int)groupLength), settings.IsSymmetric, scales.Type, isFirstVersion ? 1 : 0), isFirstVersion);
        foreach (OutputTensor expected in matrix.Tensors)
        {
            TensorEntry? found = source.Find(expected.Name);
            // Old writers leave the index out where it is trivial.
            if (found is null && expected.Name.EndsWith(GroupIndex, StringComparison.Ordinal)) continue;
            found = Entry(expected.Name[module.Length..]);
            if (!ReferenceEquals(found.Type, expected.Type) || !found.Shape.Equals(expected.Shape)) throw Wrong(found, $"{expected.Type} {expected.Shape}");
        }

        return matrix;

        TensorEntry Entry(string suffix) => source.Find(module + suffix) ?? throw new QuantException(ErrorKind.InvalidInput, "a packed matrix lacks a tensor")
        {
            Path = path, Tensor = module + suffix, Found = "nothing", Expected = $"{Weights[1..]}, {Zeros[1..]}, {Scales[1..]}", Remedy = "Check the download.",
        };

        QuantException Wrong(TensorEntry entry, string expected) => new(ErrorKind.InvalidInput, "a packed matrix is not what quantization_config says")
        {
            Path = path, Tensor = entry.Name, Found = $"{entry.Type} {entry.Shape}", Expected = expected, Remedy = "bits, group_size and dynamic must be those that the weights were packed with.",
        };
    }
}
