using System.Buffers.Binary;
using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using System.Text;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Gguf;

public enum ImatrixFormat
{
    /// <summary>GGUF, since 2025.</summary>
    Gguf,

    /// <summary>The older format, which ik_llama.cpp reads.</summary>
    Dat,
}

/// <summary>Writes importance matrices as llama-imatrix does.</summary>
public static class ImatrixWriter
{
    internal const string TypeKey = "general.type";
    internal const string TypeName = "imatrix";
    internal const string DatasetsKey = "imatrix.datasets";
    internal const string ChunkCountKey = "imatrix.chunk_count";
    internal const string ChunkSizeKey = "imatrix.chunk_size";
    internal const string SumsSuffix = ".in_sum2";
    internal const string CountsSuffix = ".counts";

    /// <summary>The whole file, final padding included.</summary>
    /// <exception cref="QuantException">A name is too long for GGUF, or a length for the older format.</exception>
    public static byte[] Write(Imatrix imatrix, ImatrixFormat format, string fileName) => format == ImatrixFormat.Gguf ? WriteGguf(imatrix, fileName) : WriteDat(imatrix);

    private static byte[] WriteGguf(Imatrix imatrix, string fileName)
    {
        GgufMetadata metadata = new();
        metadata.Set(TypeKey, GgufValue.String(TypeName));
        // Readers ask for the key, and no array of ours is empty.
        metadata.Set(DatasetsKey, GgufValue.StringArray(imatrix.Datasets.Count == 0 ? [""] : imatrix.Datasets));
        metadata.Set(ChunkCountKey, GgufValue.Scalar((uint)imatrix.ChunkCount));
        metadata.Set(ChunkSizeKey, GgufValue.Scalar((uint)imatrix.ChunkSize));
        List<OutputTensor> tensors = [];
        List<float[]> values = [];
        foreach (ImatrixEntry entry in imatrix.Entries.OrderBy(entry => entry.Name, StringComparer.Ordinal))
        {
            // ggml counts no outer dimensions of one.
            int slices = entry.Counts.Length;
            tensors.Add(new OutputTensor(entry.Name + SumsSuffix, PlainTypes.F32, slices == 1 ? new Shape(entry.Width) : new Shape(slices, entry.Width)));
            tensors.Add(new OutputTensor(entry.Name + CountsSuffix, PlainTypes.F32, slices == 1 ? new Shape(1) : new Shape(slices, 1)));
            values.Add(entry.Sums);
            values.Add([.. entry.Counts.Select(count => (float)count)]);
        }

        PlannedFile plan = GgufPlan.Create(metadata, tensors, fileName);
        byte[] file = new byte[checked((int)plan.ByteLength)];
        plan.Header.CopyTo(file, 0);
        foreach ((PlannedTensor tensor, float[] numbers) in plan.Tensors.Zip(values)) MemoryMarshal.AsBytes(numbers.AsSpan()).CopyTo(file.AsSpan((int)tensor.ByteOffset));
        return file;
    }

    private static byte[] WriteDat(Imatrix imatrix)
    {
        using MemoryStream file = new();
        int chunkSize = imatrix.ChunkSize > 0 ? imatrix.ChunkSize : Imatrix.DefaultChunkSize;
        Number(imatrix.Entries.Count);
        foreach (ImatrixEntry entry in imatrix.Entries.OrderBy(entry => entry.Name, StringComparer.Ordinal))
        {
            // Calls: windows that the entry was seen in, which readers divide by.
            int calls = checked((int)((entry.Counts.Max() + chunkSize - 1) / chunkSize));
            float[] values = entry.MeanSquares();
            TensorPrimitives.Multiply(values, calls, values);
            Text(entry.Name);
            Number(calls);
            Number(values.Length);
            file.Write(MemoryMarshal.AsBytes(values.AsSpan()));
        }

        Number(imatrix.ChunkCount);
        Text(imatrix.Datasets.Count == 0 ? "" : imatrix.Datasets[^1]);
        return file.ToArray();

        void Number(int value)
        {
            Span<byte> bytes = stackalloc byte[sizeof(int)];
            BinaryPrimitives.WriteInt32LittleEndian(bytes, value);
            file.Write(bytes);
        }

        void Text(string text)
        {
            byte[] utf8 = Encoding.UTF8.GetBytes(text);
            Number(utf8.Length);
            file.Write(utf8);
        }
    }
}
