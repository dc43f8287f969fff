using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>
/// Checks that tensors lie one after the other, each padded to the alignment, all within the file. Behind a tensor of unknown
/// type the next offset cannot be computed: it must be aligned, within the file, and not before that tensor.
/// </summary>
internal sealed class GgufDataSection(IReadFile file, int alignment, long dataOffset, IEventSink events)
{
    private readonly long _presentBytes = Math.Max(file.Length - dataOffset, 0);

    public IReadOnlyList<GgufTensorInfo> Place(List<RawTensor> tensors)
    {
        GgufTensorInfo[] placed = new GgufTensorInfo[tensors.Count];
        long earliest = 0;
        bool isExact = true;
        for (int i = 0; i < placed.Length; i++)
        {
            RawTensor tensor = tensors[i];
            CheckOffset(tensor, earliest, isExact);
            GgmlType? type = GgmlTypes.Find(tensor.TypeId);
            isExact = type is not null;
            earliest = type is null ? tensor.RelativeOffset : PaddedEnd(tensor, type);
            placed[i] = new GgufTensorInfo(tensor.Name, tensor.Shape, tensor.TypeId, type, dataOffset + tensor.RelativeOffset);
        }

        if (placed.Length > 0 && isExact) CheckTail(earliest);
        return placed;
    }

    private void CheckOffset(RawTensor tensor, long earliest, bool isExact)
    {
        long offset = tensor.RelativeOffset;
        if (offset < 0) throw Outside(tensor, offset);
        if ((offset & (alignment - 1)) != 0)
        {
            throw GgufRefusal.Of(
                GgufRules.CustomAlignment, file.Path, "a tensor is not aligned", tensor.Name, found: $"offset {offset}", expected: $"a multiple of {alignment}");
        }

        if (isExact ? offset != earliest : offset < earliest)
        {
            throw GgufRefusal.Of(
                GgufRules.Offset, file.Path, "a tensor does not follow the one before it", tensor.Name,
                found: $"offset {offset}", expected: isExact ? $"offset {earliest}" : $"offset {earliest} or more");
        }

        if (!isExact && offset > _presentBytes) throw Outside(tensor, offset);
    }

    /// <summary>Where the next tensor starts, counted from the data section, after checking whole rows and that every byte is in the file.</summary>
    private long PaddedEnd(RawTensor tensor, GgmlType type)
    {
        int blockLength = type.Element.ValuesPerBlock;
        if (tensor.Shape.RowLength % blockLength != 0)
        {
            throw GgufRefusal.Of(
                GgufRules.RowLength, file.Path, $"a row of {type.Name} is not whole blocks", tensor.Name,
                found: $"{tensor.Shape.RowLength} values", expected: $"a multiple of {blockLength}");
        }

        if (!CheckedMath.TryMultiply(tensor.Shape.ValueCount / blockLength, type.Element.BytesPerBlock, out long byteLength)
            || !CheckedMath.TryAdd(tensor.RelativeOffset, byteLength, out long end)
            || !CheckedMath.TryAlign(end, alignment, out long paddedEnd)
            || !CheckedMath.TryAdd(dataOffset, paddedEnd, out _))
        {
            throw GgufRefusal.Of(
                GgufRules.DataLength, file.Path, "a tensor's size overflows", tensor.Name, found: $"{tensor.Shape} {type.Name}", expected: $"at most {_presentBytes} bytes");
        }

        return byteLength == 0 || end <= _presentBytes ? paddedEnd : throw Outside(tensor, end);
    }

    private QuantException Outside(RawTensor tensor, long end) => GgufRefusal.Of(
        GgufRules.DataLength, file.Path, "a tensor lies outside the file", tensor.Name,
        found: $"data bytes up to {(ulong)end}", expected: $"at most {_presentBytes}",
        remedy: "The file is cut short or damaged: download it again.");

    private void CheckTail(long paddedEnd)
    {
        string path = TextEscape.Escape(file.Path);
        if (file.Length < dataOffset + paddedEnd)
        {
            events.Report(new QuantEvent(
                "gguf-padding-cut", $"{path}: the file ends inside the padding of its last tensor, {dataOffset + paddedEnd - file.Length} bytes early [{GgufRules.LastPadding.Id}]"));
        }
        else if (_presentBytes > paddedEnd)
        {
            events.Report(new QuantEvent("gguf-trailing-bytes", $"{path}: {_presentBytes - paddedEnd} bytes after the last tensor belong to nothing"));
        }
    }
}
