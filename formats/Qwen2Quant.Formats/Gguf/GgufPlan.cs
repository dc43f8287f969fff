using System.Text;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>
/// Plans GGUF outputs, version 3, before a byte of data is computed. What is written differs from the metadata given in
/// these ways, which are those of the field's own tools:
/// <list type="bullet">
/// <item>empty strings and empty arrays are left out (gguf-py);</item>
/// <item><c>split.*</c> keys are those of the output, whatever the source had (llama-quantize, gguf-split);</item>
/// <item><c>general.quantization_version</c> 2 is appended when a tensor is quantized and the key is missing.</item>
/// </list>
/// Verbatim plans take everything but the <c>split.*</c> keys as it is given. Tensors are written in the order given, with all dimensions given.
/// </summary>
public static class GgufPlan
{
    private const uint QuantizationVersion = 2;

    /// <summary>One file. Tensors are padded to <c>general.alignment</c> where the metadata have it, else to 32 bytes, the last one included.</summary>
    /// <exception cref="QuantException">The file would break a rule of <see cref="GgufRules"/>.</exception>
    public static PlannedFile Create(GgufMetadata metadata, IReadOnlyList<OutputTensor> tensors, string fileName, bool isVerbatim = false) =>
        PlanFile(Prepare(metadata, tensors, fileName, isVerbatim), tensors, fileName);

    /// <summary>
    /// A split set named <c>prefix-00001-of-0000N.gguf</c>, a part for each element of <paramref name="parts"/>. The first
    /// carries all metadata, the others the <c>split.*</c> keys and a custom alignment.
    /// </summary>
    /// <exception cref="QuantException">The files would break a rule of <see cref="GgufRules"/>.</exception>
    public static IReadOnlyList<PlannedFile> CreateSplit(GgufMetadata metadata, IReadOnlyList<IReadOnlyList<OutputTensor>> parts, string prefix, bool isVerbatim = false)
    {
        OutputTensor[] all = [.. parts.SelectMany(part => part)];
        if (parts.Count is 0 or > GgufSplit.MostParts)
        {
            throw GgufRefusal.Of(GgufRules.Split, prefix, "a split file cannot have this many parts", found: $"{parts.Count}", expected: $"1 to {GgufSplit.MostParts}");
        }

        GgufMetadata first = Prepare(metadata, all, prefix, isVerbatim);
        List<PlannedFile> planned = [];
        for (int i = 0; i < parts.Count; i++)
        {
            GgufMetadata own = i == 0 ? first : OfLaterPart(first);
            own.Set(GgufKeys.SplitNo, GgufValue.Scalar((ushort)i));
            own.Set(GgufKeys.SplitTensorCount, GgufValue.Scalar(all.Length));

            // gguf-split knows the number of parts last, so its key is the last one.
            own.Set(GgufKeys.SplitCount, GgufValue.Scalar((ushort)parts.Count));
            planned.Add(PlanFile(own, parts[i], GgufSplit.PartName(prefix, i, parts.Count)));
        }

        return planned;
    }

    /// <summary>A split set cut as gguf-split does, by <paramref name="limit"/>.</summary>
    /// <exception cref="QuantException">The files would break a rule of <see cref="GgufRules"/>.</exception>
    public static IReadOnlyList<PlannedFile> CreateSplit(GgufMetadata metadata, IReadOnlyList<OutputTensor> tensors, string prefix, GgufSplitLimit limit, bool isVerbatim = false) =>
        CreateSplit(metadata, limit.Cut(tensors, GgufHeaderReader.GetAlignment(metadata, prefix), prefix), prefix, isVerbatim);

    private static GgufMetadata OfLaterPart(GgufMetadata first)
    {
        GgufMetadata metadata = new();
        if (first.Find(GgufKeys.Alignment) is { } alignment) metadata.Set(GgufKeys.Alignment, alignment);
        return metadata;
    }

    /// <summary>The metadata that will be written, with everything checked that concerns all tensors together.</summary>
    private static GgufMetadata Prepare(GgufMetadata metadata, IReadOnlyList<OutputTensor> tensors, string path, bool isVerbatim)
    {
        GgufMetadata prepared = new();
        foreach ((string key, GgufValue value) in metadata)
        {
            if (key is GgufKeys.SplitNo or GgufKeys.SplitCount or GgufKeys.SplitTensorCount) continue;
            CheckPair(key, value, path);
            bool isEmpty = value.IsArray ? value.Count == 0 : value.Type == GgufValueType.String && value.GetUtf8().IsEmpty;
            if (isVerbatim || !isEmpty) prepared.Set(key, value);
        }

        HashSet<string> names = new(StringComparer.Ordinal);
        foreach (OutputTensor tensor in tensors)
        {
            CheckTensor(tensor, path);
            if (!names.Add(tensor.Name)) throw GgufRefusal.Of(GgufRules.TensorName, path, "two tensors have the name", tensor.Name);
        }

        if (!isVerbatim && prepared.Find(GgufKeys.QuantizationVersion) is null && tensors.Any(tensor => tensor.Type.IsQuantized))
        {
            prepared.Set(GgufKeys.QuantizationVersion, GgufValue.Scalar(QuantizationVersion));
        }

        return prepared;
    }

    private static void CheckPair(string key, GgufValue value, string path)
    {
        const int LongestKey = 65535;
        if (key.Length is 0 or > LongestKey) throw GgufRefusal.Of(GgufRules.KeyLength, path, "a metadata key has an impossible length", key);
        if (!GgufKeys.IsWellFormed(key))
        {
            throw GgufRefusal.Of(
                GgufRules.KeySpelling, path, "a metadata key is not lower snake case with dots", key, remedy: "Leave the key out, or spell it so.");
        }

        if (value is { IsArray: true, ElementType: GgufValueType.Array })
        {
            throw GgufRefusal.Of(
                GgufRules.Nesting, path, "metadata hold an array of arrays, which ggml's reader refuses", key, remedy: "Leave the key out.", kind: ErrorKind.Unsupported);
        }
    }

    private static void CheckTensor(OutputTensor tensor, string path)
    {
        Limits limits = Limits.Default;
        int nameBytes = Encoding.UTF8.GetByteCount(tensor.Name);
        if (nameBytes == 0 || nameBytes > limits.GgufNameBytes || tensor.Name.Contains('\0', StringComparison.Ordinal))
        {
            throw GgufRefusal.Of(
                GgufRules.TensorName, path, "a tensor cannot have this name", tensor.Name, found: $"{nameBytes} bytes", expected: $"1 to {limits.GgufNameBytes} bytes without NUL");
        }

        if (tensor.Shape.Rank < 1 || tensor.Shape.Rank > limits.GgufDimensions)
        {
            throw GgufRefusal.Of(
                GgufRules.Rank, path, "a tensor has an impossible number of dimensions", tensor.Name, found: $"{tensor.Shape.Rank}", expected: $"1 to {limits.GgufDimensions}");
        }

        if (GgmlTypes.Of(tensor.Type) is null)
        {
            throw GgufRefusal.Of(GgufRules.TensorType, path, "ggml has no type for a tensor", tensor.Name, found: tensor.Type.Name, kind: ErrorKind.Unsupported);
        }

        if (tensor.Shape.RowLength % tensor.Type.ValuesPerBlock != 0)
        {
            throw GgufRefusal.Of(
                GgufRules.RowLength, path, $"a row of {tensor.Type.Name} is not whole blocks", tensor.Name,
                found: $"{tensor.Shape.RowLength} values", expected: $"a multiple of {tensor.Type.ValuesPerBlock}");
        }
    }

    private static PlannedFile PlanFile(GgufMetadata metadata, IReadOnlyList<OutputTensor> tensors, string fileName)
    {
        int alignment = GgufHeaderReader.GetAlignment(metadata, fileName);
        GgufHeaderWriter writer = new();
        writer.Preamble(tensors.Count, metadata.Count);
        foreach ((string key, GgufValue value) in metadata) writer.Pair(key, value);

        long offset = 0;
        long[] offsets = new long[tensors.Count];
        for (int i = 0; i < offsets.Length; i++)
        {
            OutputTensor tensor = tensors[i];
            offsets[i] = offset;
            writer.TensorInfo(tensor.Name, tensor.Shape.Dimensions, GgmlTypes.Of(tensor.Type)!.Id, offset);
            offset = PaddedEnd(offset, tensor, alignment, fileName);
        }

        byte[] header = writer.ToPaddedArray(alignment);
        if (!CheckedMath.TryAdd(header.Length, offset, out long byteLength)) throw TooLarge(fileName, tensor: null);
        PlannedTensor[] planned = [.. tensors.Select((tensor, i) => new PlannedTensor(tensor, header.Length + offsets[i]))];
        return new PlannedFile(fileName, header, byteLength, planned);
    }

    /// <summary>Where the tensor after this one starts.</summary>
    internal static long PaddedEnd(long offset, OutputTensor tensor, int alignment, string path) =>
        CheckedMath.TryMultiply(tensor.Shape.ValueCount / tensor.Type.ValuesPerBlock, tensor.Type.BytesPerBlock, out long byteLength)
        && CheckedMath.TryAdd(offset, byteLength, out long end)
        && CheckedMath.TryAlign(end, alignment, out long paddedEnd)
            ? paddedEnd
            : throw TooLarge(path, tensor.Name);

    private static QuantException TooLarge(string path, string? tensor) =>
        GgufRefusal.Of(GgufRules.DataLength, path, "the file would exceed 2^63 bytes", tensor, kind: ErrorKind.Resource);
}
