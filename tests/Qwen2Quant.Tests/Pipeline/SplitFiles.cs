using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Split GGUF files made of whole ones.</summary>
internal static class SplitFiles
{
    /// <summary>Cuts a file into three parts beside it, before tensors <paramref name="second"/> and <paramref name="third"/>.</summary>
    public static void Cut(string path, string prefix, int second, int third)
    {
        using GgufFile whole = GgufFile.Open(DiskFileLayer.Instance, path, new ReadOptions());
        OutputTensor[] tensors = [.. whole.Tensors.Select(entry => new OutputTensor(entry.Name, entry.Type, entry.Shape))];
        foreach (PlannedFile planned in GgufPlan.CreateSplit(whole.Metadata, [tensors[..second], tensors[second..third], tensors[third..]], prefix))
        {
            using IWriteFile file = DiskFileLayer.Instance.Create(Path.Combine(Path.GetDirectoryName(path)!, planned.Name), planned.ByteLength);
            file.Write(0, planned.Header);
            foreach (PlannedTensor tensor in planned.Tensors) file.Write(tensor.ByteOffset, Bytes(whole, whole.Find(tensor.Tensor.Name)!));
        }
    }

    public static byte[] Bytes(GgufFile file, TensorEntry entry)
    {
        byte[] bytes = new byte[entry.ByteLength];
        file.ReadRaw(entry, 0, bytes);
        return bytes;
    }
}
