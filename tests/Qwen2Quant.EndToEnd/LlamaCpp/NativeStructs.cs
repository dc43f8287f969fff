using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Qwen2Quant.EndToEnd.LlamaCpp;

/// <summary>
/// A parameter struct of llama.h that travels by value and is not looked into, but for its documented first fields.
/// It is larger than the real one: a caller's struct lies in memory, and the callee reads its own prefix of it.
/// </summary>
[InlineArray(512)]
internal struct OpaqueParameters
{
    private byte _first;
}

/// <summary><c>llama_model_quantize_params</c>, with room behind it for fields of later versions.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct QuantizeParameters
{
    public int ThreadCount;
    public int FileType;
    public int OutputTensorType;
    public int TokenEmbeddingType;
    public byte AllowRequantize;
    public byte QuantizeOutputTensor;
    public byte OnlyCopy;
    public byte Pure;
    public byte KeepSplit;
    public byte DryRun;
    public nint Imatrix;
    public nint MetadataOverrides;
    public nint TensorTypeOverrides;
    public nint PruneLayers;
    public Reserve Rest;

    [InlineArray(256)]
    public struct Reserve
    {
        private byte _first;
    }
}

/// <summary><c>llama_model_imatrix_data</c>; a list of them ends with a null name.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct ImatrixEntry
{
    public nint Name;
    public nint Values;
    public nuint ValueCount;
}

/// <summary><c>llama_model_tensor_override</c>; a list of them ends with a null pattern.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct TensorTypeOverride
{
    public nint Pattern;
    public int Type;
}

/// <summary><c>llama_batch</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct LlamaBatch
{
    public int TokenCount;
    public int* Tokens;
    public float* Embeddings;
    public int* Positions;
    public int* SequenceCounts;
    public int** SequenceIds;
    public sbyte* WantsLogits;
}

/// <summary><c>ggml_type_traits</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct GgmlTypeTraits
{
    public byte* Name;
    public long ValuesPerBlock;
    public long Interleave;
    public nuint BytesPerBlock;
    public byte IsQuantized;
    public delegate* unmanaged<void*, float*, long, void> ToFloat;
    public delegate* unmanaged<float*, void*, long, void> FromFloatReference;
}
