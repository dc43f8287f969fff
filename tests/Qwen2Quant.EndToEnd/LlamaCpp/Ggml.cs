using System.Runtime.InteropServices;

namespace Qwen2Quant.EndToEnd.LlamaCpp;

/// <summary>ggml's own block encoders and decoders. Types are ggml's numeric ids.</summary>
public static unsafe class Ggml
{
    public static string TypeName(int type) => Marshal.PtrToStringUTF8((nint)LlamaApi.TypeTraits(type)->Name) ?? "";

    public static int ValuesPerBlock(int type) => checked((int)LlamaApi.TypeTraits(type)->ValuesPerBlock);

    public static int BytesPerBlock(int type) => checked((int)LlamaApi.TypeTraits(type)->BytesPerBlock);

    public static bool RequiresImatrix(int type) => LlamaApi.RequiresImatrix(type) != 0;

    /// <summary><c>ggml_quantize_chunk</c>: encodes <paramref name="rowCount"/> rows of <paramref name="rowLength"/> values.</summary>
    /// <param name="imatrix">Empty, or one importance for each of <paramref name="rowLength"/> columns.</param>
    public static byte[] Quantize(int type, ReadOnlySpan<float> values, int rowCount, int rowLength, ReadOnlySpan<float> imatrix = default)
    {
        if (values.Length != checked(rowCount * rowLength)) throw new ArgumentException("not rowCount x rowLength values", nameof(values));
        if (rowLength % ValuesPerBlock(type) != 0) throw new ArgumentException("not whole blocks", nameof(rowLength));
        if (imatrix.Length != 0 && imatrix.Length != rowLength) throw new ArgumentException("not one importance for each column", nameof(imatrix));
        if (imatrix.IsEmpty && RequiresImatrix(type)) throw new ArgumentException($"{TypeName(type)} needs an imatrix", nameof(imatrix));
        byte[] blocks = new byte[values.Length / ValuesPerBlock(type) * BytesPerBlock(type)];
        fixed (float* source = values)
        fixed (byte* destination = blocks)
        fixed (float* importance = imatrix)
        {
            nuint written = LlamaApi.QuantizeChunk(type, source, destination, 0, rowCount, rowLength, importance);
            if (written != (nuint)blocks.Length) throw new InvalidOperationException($"ggml_quantize_chunk wrote {written} of {blocks.Length} bytes");
        }

        return blocks;
    }

    /// <summary><c>to_float</c> of the type's traits; F32, which has none, is copied.</summary>
    public static float[] Dequantize(int type, ReadOnlySpan<byte> blocks)
    {
        GgmlTypeTraits* traits = LlamaApi.TypeTraits(type);
        if (blocks.Length % BytesPerBlock(type) != 0) throw new ArgumentException("not whole blocks", nameof(blocks));
        if (traits->ToFloat == null) return type == 0 ? MemoryMarshal.Cast<byte, float>(blocks).ToArray() : throw new NotSupportedException($"ggml does not decode {TypeName(type)}");
        float[] values = new float[checked(blocks.Length / BytesPerBlock(type) * ValuesPerBlock(type))];
        fixed (byte* source = blocks)
        fixed (float* destination = values) traits->ToFloat(source, destination, values.Length);
        return values;
    }
}
