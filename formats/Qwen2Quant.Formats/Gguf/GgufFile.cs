using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>
/// An opened GGUF model: one file, or all parts of a split one. Shapes are in Hugging Face order, outermost dimension first,
/// which is the reverse of ggml's <c>ne</c>. Versions 1 to 3, little-endian.
/// </summary>
public sealed class GgufFile : ITensorSource
{
    private readonly IReadOnlyList<IReadFile> _files;
    private readonly TensorEntry[] _tensors;
    private readonly Dictionary<string, TensorEntry> _byName;

    private GgufFile(IReadOnlyList<IReadFile> files, IReadOnlyList<GgufPart> parts)
    {
        _files = files;
        Parts = parts;
        _tensors = [.. parts.SelectMany((part, index) => part.Tensors.Select(tensor => ToEntry(part, tensor, index)))];
        _byName = _tensors.ToDictionary(tensor => tensor.Name, StringComparer.Ordinal);
    }

    /// <summary>The files, in order; <see cref="TensorEntry.FileIndex"/> counts in them.</summary>
    public IReadOnlyList<GgufPart> Parts { get; }

    /// <summary>Metadata of the first part, which has those of the model.</summary>
    public GgufMetadata Metadata => Parts[0].Metadata;

    public int Version => Parts[0].Version;

    /// <summary>What tensors of the first part are padded to, in bytes.</summary>
    public int Alignment => Parts[0].Alignment;

    public IReadOnlyList<TensorEntry> Tensors => _tensors;

    /// <summary>Opens a file, with its siblings when it is any part of a split one, and checks all headers.</summary>
    /// <exception cref="QuantException">A rule of <see cref="GgufRules"/> is broken, a limit exceeded, or a file cannot be read.</exception>
    public static GgufFile Open(IFileLayer files, string path, ReadOptions options)
    {
        List<IReadFile> opened = [];
        return Guard(opened, () => new GgufFile(opened, ReadParts(files, path, options, opened)));
    }

    /// <summary>Opens one file that stands alone, such as one in memory; the result owns it, and it is closed when opening fails.</summary>
    /// <exception cref="QuantException">A rule of <see cref="GgufRules"/> is broken, or a limit exceeded.</exception>
    public static GgufFile Open(IReadFile file, ReadOptions options)
    {
        List<IReadFile> opened = [file];
        return Guard(opened, () =>
        {
            GgufPart part = GgufHeaderReader.Read(file, options);
            if (GgufSplit.PartCount(part) is var count and > 1)
            {
                throw GgufRefusal.Of(GgufRules.Split, part.Path, "the file is a part of a split one and stands alone", found: $"{count} parts", expected: "1");
            }

            GgufSplit.CheckAlone(part);
            return new GgufFile(opened, [part]);
        });
    }

    /// <summary>
    /// The headers alone, for listing: checked as by <see cref="Open(IFileLayer, string, ReadOptions)"/>, but tensors may have types that ggml does not have.
    /// </summary>
    /// <exception cref="QuantException">A rule of <see cref="GgufRules"/> other than <see cref="GgufRules.TensorType"/> is broken, a limit exceeded, or a file cannot be read.</exception>
    public static IReadOnlyList<GgufPart> Inspect(IFileLayer files, string path, ReadOptions options)
    {
        List<IReadFile> opened = [];
        IReadOnlyList<GgufPart> parts = Guard(opened, () => ReadParts(files, path, options, opened));
        foreach (IReadFile file in opened) file.Dispose();
        return parts;
    }

    public TensorEntry? Find(string name) => _byName.GetValueOrDefault(name);

    /// <inheritdoc/>
    /// <exception cref="ArgumentOutOfRangeException">The range is not within the tensor.</exception>
    public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(byteOffset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(byteOffset, entry.ByteLength - destination.Length);
        _files[entry.FileIndex].ReadExactly(checked(entry.ByteOffset + byteOffset), destination);
    }

    public void Dispose()
    {
        foreach (IReadFile file in _files) file.Dispose();
    }

    private static List<GgufPart> ReadParts(IFileLayer files, string path, ReadOptions options, List<IReadFile> opened)
    {
        IReadFile file = files.OpenTyped(path);
        opened.Add(file);
        GgufPart part = GgufHeaderReader.Read(file, options);
        int count = GgufSplit.PartCount(part);
        if (count == 1)
        {
            GgufSplit.CheckAlone(part);
            return [part];
        }

        return GgufSplit.ReadSet(files, part, count, options, opened);
    }

    /// <summary>Runs <paramref name="open"/>; when it fails, closes what it opened.</summary>
    private static T Guard<T>(List<IReadFile> opened, Func<T> open)
    {
        try
        {
            return open();
        }
        catch
        {
            foreach (IReadFile file in opened) file.Dispose();
            throw;
        }
    }

    private static TensorEntry ToEntry(GgufPart part, GgufTensorInfo tensor, int fileIndex)
    {
        if (tensor.Type is { } type) return new TensorEntry(tensor.Name, type.Element, tensor.Shape, tensor.ByteOffset, fileIndex);
        throw GgufRefusal.Of(
            GgufRules.TensorType, part.Path, "a tensor has a type that ggml does not have, or has removed", tensor.Name,
            found: $"type {tensor.TypeId}", remedy: "Its name and shape can be listed, its values not read: quantize the original model again.",
            kind: ErrorKind.Unsupported);
    }
}
