using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>Reads importance matrices of llama-imatrix: GGUF, or the older format, told by what the file starts with.</summary>
public static class ImatrixReader
{
    /// <summary>Opens, checks and closes a file.</summary>
    /// <exception cref="QuantException">IM-121, NU-91, a rule of <see cref="GgufRules"/>, a limit, or the file cannot be read.</exception>
    public static Imatrix Read(IFileLayer files, string path, ReadOptions options)
    {
        using IReadFile file = files.OpenTyped(path);
        Span<byte> magic = stackalloc byte[4];
        if (file.Length >= magic.Length) file.ReadExactly(0, magic);
        Imatrix imatrix = magic.SequenceEqual("GGUF"u8) ? ReadGguf(file, options) : ImatrixDatReader.Read(file, options.Limits);
        imatrix.Check(path);
        return imatrix;
    }

    private static Imatrix ReadGguf(IReadFile file, ReadOptions options)
    {
        using GgufFile gguf = GgufFile.Open(file, options);
        if (gguf.Metadata.TryGetString(ImatrixWriter.TypeKey, out string? type) && type != ImatrixWriter.TypeName)
        {
            throw GgufRefusal.Of(ImatrixRules.Layout, file.Path, "the file is no importance matrix", ImatrixWriter.TypeKey, found: type, expected: ImatrixWriter.TypeName);
        }

        List<ImatrixEntry> entries = [];
        foreach (TensorEntry tensor in gguf.Tensors)
        {
            // Sums of the inputs themselves (in_sum) and what else newer tools add are not needed here.
            if (tensor.Name.EndsWith(ImatrixWriter.CountsSuffix, StringComparison.Ordinal)) Values(gguf, tensor.Name[..^ImatrixWriter.CountsSuffix.Length], ImatrixWriter.SumsSuffix, file.Path);
            if (!tensor.Name.EndsWith(ImatrixWriter.SumsSuffix, StringComparison.Ordinal)) continue;
            string name = tensor.Name[..^ImatrixWriter.SumsSuffix.Length];
            TensorEntry sums = Values(gguf, name, ImatrixWriter.SumsSuffix, file.Path);
            TensorEntry counts = Values(gguf, name, ImatrixWriter.CountsSuffix, file.Path);
            if (sums.Shape.ValueCount % counts.Shape.ValueCount != 0)
            {
                throw GgufRefusal.Of(
                    ImatrixRules.Layout, file.Path, "an entry's sums are not as many for each count", name,
                    found: $"{sums.Shape.ValueCount} sums and {counts.Shape.ValueCount} counts");
            }

            entries.Add(new ImatrixEntry(name, gguf.ReadAll(sums), [.. gguf.ReadAll(counts).Select(count => Count(count, name, file.Path))]));
        }

        if (entries.Count == 0) throw GgufRefusal.Of(ImatrixRules.Layout, file.Path, "the file is no importance matrix: it has no sums of squares", expected: $"tensors named *{ImatrixWriter.SumsSuffix}");
        entries.Sort((a, b) => string.CompareOrdinal(a.Name, b.Name));
        gguf.Metadata.TryGetStringArray(ImatrixWriter.DatasetsKey, out string[]? datasets);
        gguf.Metadata.TryGetInteger(ImatrixWriter.ChunkCountKey, out uint chunkCount);
        gguf.Metadata.TryGetInteger(ImatrixWriter.ChunkSizeKey, out uint chunkSize);
        return new Imatrix(entries, [.. (datasets ?? []).Where(dataset => dataset.Length > 0)], (int)Math.Min(chunkCount, int.MaxValue), (int)Math.Min(chunkSize, int.MaxValue));
    }

    /// <summary>The tensor of an entry, of single floats and not empty.</summary>
    private static TensorEntry Values(GgufFile gguf, string name, string suffix, string path)
    {
        TensorEntry? tensor = gguf.Find(name + suffix);
        if (tensor is not null && ReferenceEquals(tensor.Type, PlainTypes.F32) && tensor.Shape.ValueCount is > 0 and <= int.MaxValue) return tensor;
        throw GgufRefusal.Of(
            ImatrixRules.Layout, path, "an entry is incomplete", name + suffix,
            found: tensor is null ? "no such tensor" : $"{tensor.Type} {tensor.Shape}", expected: "single floats");
    }

    private static long Count(float count, string name, string path) => count is >= 0 and < long.MaxValue
        ? (long)Math.Round((double)count, MidpointRounding.AwayFromZero)
        : throw GgufRefusal.Of(
            Core.Numerics.StatisticsRules.Usable, path, "a count of rows is impossible", name, found: count.ToString(CultureInfo.InvariantCulture), expected: "a whole number, not negative");
}
