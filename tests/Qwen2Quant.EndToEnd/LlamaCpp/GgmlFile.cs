using System.Runtime.InteropServices;

namespace Qwen2Quant.EndToEnd.LlamaCpp;

/// <summary>A GGUF file, data and all, as ggml's own reader loads it; what llama.cpp reads importance matrices with.</summary>
public sealed unsafe class GgmlFile : IDisposable
{
    private static readonly nint Library = NativeLibrary.Load(Path.Combine(InteropPackages.LlamaLibraries ?? throw new InvalidOperationException("llama.cpp is not installed"), "libggml-base.so"));
    private readonly nint _file;
    private readonly nint _tensors;

    /// <exception cref="InvalidOperationException">ggml refuses the file.</exception>
    public GgmlFile(string path)
    {
        nint tensors = 0;
        fixed (byte* native = LlamaApi.ToNative(path))
        {
            _file = ((delegate* unmanaged<byte*, InitParameters, nint>)Export("gguf_init_from_file"))(native, new InitParameters { NoAlloc = 0, Tensors = &tensors });
        }

        if (_file == 0) throw new InvalidOperationException("gguf_init_from_file failed");
        _tensors = tensors;
    }

    public long TensorCount => ((delegate* unmanaged<nint, long>)Export("gguf_get_n_tensors"))(_file);

    /// <summary>A metadata value of type u32; null when there is no such key.</summary>
    public uint? UInt32(string key) => FindKey(key) is >= 0 and var id ? ((delegate* unmanaged<nint, long, uint>)Export("gguf_get_val_u32"))(_file, id) : null;

    /// <summary>Elements of a metadata array; null when there is no such key.</summary>
    public nuint? ArrayLength(string key) => FindKey(key) is >= 0 and var id ? ((delegate* unmanaged<nint, long, nuint>)Export("gguf_get_arr_n"))(_file, id) : null;

    /// <summary>The values of an F32 tensor; null when there is none of that name.</summary>
    public float[]? Values(string name)
    {
        fixed (byte* native = LlamaApi.ToNative(name))
        {
            nint tensor = ((delegate* unmanaged<nint, byte*, nint>)Export("ggml_get_tensor"))(_tensors, native);
            if (tensor == 0) return null;
            long count = ((delegate* unmanaged<nint, long>)Export("ggml_nelements"))(tensor);
            return new ReadOnlySpan<float>(((delegate* unmanaged<nint, float*>)Export("ggml_get_data_f32"))(tensor), checked((int)count)).ToArray();
        }
    }

    public void Dispose()
    {
        ((delegate* unmanaged<nint, void>)Export("gguf_free"))(_file);
        ((delegate* unmanaged<nint, void>)Export("ggml_free"))(_tensors);
    }

    private long FindKey(string key)
    {
        fixed (byte* native = LlamaApi.ToNative(key)) return ((delegate* unmanaged<nint, byte*, long>)Export("gguf_find_key"))(_file, native);
    }

    private static nint Export(string name) => NativeLibrary.GetExport(Library, name);

    /// <summary><c>gguf_init_params</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct InitParameters
    {
        public byte NoAlloc;
        public nint* Tensors;
    }
}
