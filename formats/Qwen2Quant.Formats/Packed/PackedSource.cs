using System.Runtime.InteropServices;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>
/// A GPTQ checkpoint with its packed matrices as tensors <c>MODULE.weight</c> of <see cref="IntegerGroup"/> rows, or of floats where the columns of a group are scattered.
/// A matrix is turned whole when it is first read; the last few are kept. Thread-safe.
/// </summary>
public sealed class PackedSource : ITensorSource
{
    /// <summary>As many as workers may be at work on, at the seam of two tensors.</summary>
    private const int MostKept = 4;

    private readonly ITensorSource _source;
    private readonly List<GptqMatrix> _matrices = [];
    private readonly Dictionary<string, TensorEntry> _byName = new(StringComparer.Ordinal);
    private readonly List<(int Index, byte[] Rows)> _kept = [];
    private readonly Lock _lock = new();

    /// <param name="source">Owned from then on, unless this throws.</param>
    /// <exception cref="QuantException">The tensors are not what the configuration says.</exception>
    public PackedSource(ITensorSource source, GptqConfig config, string path)
    {
        _source = source;
        List<TensorEntry> entries = [];
        foreach (TensorEntry entry in source.Tensors)
        {
            string? module = Suffixes.Where(suffix => entry.Name.EndsWith(suffix, StringComparison.Ordinal)).Select(suffix => entry.Name[..^suffix.Length]).FirstOrDefault();
            if (module is null)
            {
                entries.Add(entry);
                continue;
            }

            if (!entry.Name.EndsWith(GptqMatrix.Weights, StringComparison.Ordinal)) continue;
            GptqSettings settings = config.Of(module) ?? throw new QuantException(ErrorKind.InvalidInput, "a matrix is packed that dynamic leaves plain") { Path = path, Tensor = entry.Name, Remedy = "Correct quantization_config." };
            GptqMatrix matrix = GptqMatrix.Find(module, settings, config.IsFirstVersion, source, path);
            ElementType type = IsTrivial(GroupsOf(matrix), matrix, path) ? matrix.Type : PlainTypes.F32;
            // No place in a file: its index in the list.
            entries.Add(new TensorEntry(module + ".weight", type, new Shape(matrix.RowCount, matrix.RowLength), 0, -1 - _matrices.Count));
            _matrices.Add(matrix);
        }

        Tensors = entries;
        foreach (TensorEntry entry in entries) _byName.TryAdd(entry.Name, entry);
    }

    public IReadOnlyList<TensorEntry> Tensors { get; }

    private static string[] Suffixes { get; } = [GptqMatrix.Weights, GptqMatrix.Zeros, GptqMatrix.Scales, GptqMatrix.GroupIndex];

    public TensorEntry? Find(string name) => _byName.GetValueOrDefault(name);

    public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination)
    {
        if (entry.FileIndex >= 0) _source.ReadRaw(entry, byteOffset, destination);
        else Rows(-1 - entry.FileIndex, entry.Type).AsSpan(checked((int)byteOffset), destination.Length).CopyTo(destination);
    }

    public void Dispose() => _source.Dispose();

    private byte[] Rows(int index, ElementType type)
    {
        lock (_lock)
        {
            int at = _kept.FindIndex(kept => kept.Index == index);
            if (at >= 0) return _kept[at].Rows;
            byte[] rows = Turn(_matrices[index], type);
            if (_kept.Count == MostKept) _kept.RemoveAt(0);
            _kept.Add((index, rows));
            return rows;
        }
    }

    private byte[] Turn(GptqMatrix matrix, ElementType type)
    {
        byte[] rows = new byte[type.ByteCount((long)matrix.RowCount * matrix.RowLength)];
        byte[] weights = Read(matrix.Module + GptqMatrix.Weights), zeros = Read(matrix.Module + GptqMatrix.Zeros), scales = Read(matrix.Module + GptqMatrix.Scales);
        if (ReferenceEquals(type, matrix.Type)) matrix.Unpack(weights, zeros, scales, rows);
        else matrix.Decode(weights, zeros, scales, GroupsOf(matrix), MemoryMarshal.Cast<byte, float>(rows.AsSpan()));
        return rows;
    }

    private byte[] Read(string name)
    {
        TensorEntry entry = _source.Find(name)!;
        byte[] bytes = new byte[entry.ByteLength];
        _source.ReadRaw(entry, 0, bytes);
        return bytes;
    }

    private int[] GroupsOf(GptqMatrix matrix)
    {
        int[] groups = new int[matrix.RowLength];
        if (_source.Find(matrix.Module + GptqMatrix.GroupIndex) is { } index) _source.ReadRaw(index, 0, MemoryMarshal.AsBytes(groups.AsSpan()));
        else for (int column = 0; column < groups.Length; column++) groups[column] = column / matrix.Grid.GroupLength;
        return groups;
    }

    private static bool IsTrivial(int[] groups, GptqMatrix matrix, string path)
    {
        bool isTrivial = true;
        for (int column = 0; column < groups.Length; column++)
        {
            if ((uint)groups[column] >= (uint)matrix.GroupCount)
            {
                throw new QuantException(ErrorKind.InvalidInput, "a column belongs to a group that does not exist")
                {
                    Path = path, Tensor = matrix.Module + GptqMatrix.GroupIndex, Found = $"{groups[column]} at column {column}", Expected = $"0 to {matrix.GroupCount - 1}", Remedy = "Check the download.",
                };
            }

            isTrivial &= groups[column] == column / matrix.Grid.GroupLength;
        }

        return isTrivial;
    }
}
