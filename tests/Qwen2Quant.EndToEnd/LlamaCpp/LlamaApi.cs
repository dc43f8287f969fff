using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using System.Text;

namespace Qwen2Quant.EndToEnd.LlamaCpp;

/// <summary>The functions of llama.cpp's shared libraries that the tests call. The first use loads and initialises them; the log is silent, its errors are kept.</summary>
internal static unsafe class LlamaApi
{
    private const int ErrorLevel = 4;

    private static readonly ConcurrentQueue<string> Errors = new();

    private static readonly nint GgmlBase;
    private static readonly nint Ggml;
    private static readonly nint Llama;

    public static readonly delegate* unmanaged<OpaqueParameters> ModelDefaults;
    public static readonly delegate* unmanaged<OpaqueParameters> ContextDefaults;
    public static readonly delegate* unmanaged<QuantizeParameters> QuantizeDefaults;
    public static readonly delegate* unmanaged<byte*, OpaqueParameters, nint> LoadModel;
    public static readonly delegate* unmanaged<nint, void> FreeModel;
    public static readonly delegate* unmanaged<nint, OpaqueParameters, nint> CreateContext;
    public static readonly delegate* unmanaged<nint, void> FreeContext;
    public static readonly delegate* unmanaged<nint, int, int, void> SetThreads;
    public static readonly delegate* unmanaged<nint, nint> GetMemory;
    public static readonly delegate* unmanaged<nint, byte, void> ClearMemory;
    public static readonly delegate* unmanaged<int, int, int, LlamaBatch> CreateBatch;
    public static readonly delegate* unmanaged<LlamaBatch, void> FreeBatch;
    public static readonly delegate* unmanaged<nint, LlamaBatch, int> Decode;
    public static readonly delegate* unmanaged<nint, float*> GetLogits;
    public static readonly delegate* unmanaged<nint, nint> GetVocabulary;
    public static readonly delegate* unmanaged<nint, int> VocabularySize;
    public static readonly delegate* unmanaged<nint, int> BeginToken;
    public static readonly delegate* unmanaged<nint, byte> AddsBegin;
    public static readonly delegate* unmanaged<nint, int, byte> IsEndOfGeneration;
    public static readonly delegate* unmanaged<nint, byte*, int, int*, int, byte, byte, int> Tokenize;
    public static readonly delegate* unmanaged<nint, int, byte*, int, int, byte, int> TokenToPiece;
    public static readonly delegate* unmanaged<nint, byte*, byte*, nuint, int> MetadataString;
    public static readonly delegate* unmanaged<nint, ulong> ParameterCount;
    public static readonly delegate* unmanaged<byte*, byte*, QuantizeParameters*, uint> QuantizeModel;
    public static readonly delegate* unmanaged<int, float*, void*, long, long, long, float*, nuint> QuantizeChunk;
    public static readonly delegate* unmanaged<int, byte> RequiresImatrix;
    public static readonly delegate* unmanaged<int, GgmlTypeTraits*> TypeTraits;

    static LlamaApi()
    {
        string folder = InteropPackages.LlamaLibraries ?? throw new InvalidOperationException("llama.cpp is not installed");
        GgmlBase = NativeLibrary.Load(Path.Combine(folder, "libggml-base.so"));
        Ggml = NativeLibrary.Load(Directory.GetFiles(folder, "libggml.*so*").Single());
        Llama = NativeLibrary.Load(Directory.GetFiles(folder, "libllama.*so*").Single());
        ((delegate* unmanaged<delegate* unmanaged<int, byte*, void*, void>, void*, void>)Export(Llama, "llama_log_set"))(&OnLog, null);
        fixed (byte* path = ToNative(folder)) ((delegate* unmanaged<byte*, void>)Export(Ggml, "ggml_backend_load_all_from_path"))(path);
        ((delegate* unmanaged<void>)Export(Llama, "llama_backend_init"))();

        ModelDefaults = (delegate* unmanaged<OpaqueParameters>)Export(Llama, "llama_model_default_params");
        ContextDefaults = (delegate* unmanaged<OpaqueParameters>)Export(Llama, "llama_context_default_params");
        QuantizeDefaults = (delegate* unmanaged<QuantizeParameters>)Export(Llama, "llama_model_quantize_default_params");
        LoadModel = (delegate* unmanaged<byte*, OpaqueParameters, nint>)Export(Llama, "llama_model_load_from_file");
        FreeModel = (delegate* unmanaged<nint, void>)Export(Llama, "llama_model_free");
        CreateContext = (delegate* unmanaged<nint, OpaqueParameters, nint>)Export(Llama, "llama_init_from_model");
        FreeContext = (delegate* unmanaged<nint, void>)Export(Llama, "llama_free");
        SetThreads = (delegate* unmanaged<nint, int, int, void>)Export(Llama, "llama_set_n_threads");
        GetMemory = (delegate* unmanaged<nint, nint>)Export(Llama, "llama_get_memory");
        ClearMemory = (delegate* unmanaged<nint, byte, void>)Export(Llama, "llama_memory_clear");
        CreateBatch = (delegate* unmanaged<int, int, int, LlamaBatch>)Export(Llama, "llama_batch_init");
        FreeBatch = (delegate* unmanaged<LlamaBatch, void>)Export(Llama, "llama_batch_free");
        Decode = (delegate* unmanaged<nint, LlamaBatch, int>)Export(Llama, "llama_decode");
        GetLogits = (delegate* unmanaged<nint, float*>)Export(Llama, "llama_get_logits");
        GetVocabulary = (delegate* unmanaged<nint, nint>)Export(Llama, "llama_model_get_vocab");
        VocabularySize = (delegate* unmanaged<nint, int>)Export(Llama, "llama_vocab_n_tokens");
        BeginToken = (delegate* unmanaged<nint, int>)Export(Llama, "llama_vocab_bos");
        AddsBegin = (delegate* unmanaged<nint, byte>)Export(Llama, "llama_vocab_get_add_bos");
        IsEndOfGeneration = (delegate* unmanaged<nint, int, byte>)Export(Llama, "llama_vocab_is_eog");
        Tokenize = (delegate* unmanaged<nint, byte*, int, int*, int, byte, byte, int>)Export(Llama, "llama_tokenize");
        TokenToPiece = (delegate* unmanaged<nint, int, byte*, int, int, byte, int>)Export(Llama, "llama_token_to_piece");
        MetadataString = (delegate* unmanaged<nint, byte*, byte*, nuint, int>)Export(Llama, "llama_model_meta_val_str");
        ParameterCount = (delegate* unmanaged<nint, ulong>)Export(Llama, "llama_model_n_params");
        QuantizeModel = (delegate* unmanaged<byte*, byte*, QuantizeParameters*, uint>)Export(Llama, "llama_model_quantize");
        QuantizeChunk = (delegate* unmanaged<int, float*, void*, long, long, long, float*, nuint>)Export(GgmlBase, "ggml_quantize_chunk");
        RequiresImatrix = (delegate* unmanaged<int, byte>)Export(GgmlBase, "ggml_quantize_requires_imatrix");
        TypeTraits = (delegate* unmanaged<int, GgmlTypeTraits*>)Export(GgmlBase, "ggml_get_type_traits");
    }

    /// <summary>UTF-8 with a terminating zero.</summary>
    public static byte[] ToNative(string text) => Encoding.UTF8.GetBytes(text + '\0');

    /// <summary>Forgets errors logged so far; other threads' calls share the log.</summary>
    public static void ForgetErrors() => Errors.Clear();

    /// <summary>What llama.cpp logged as errors since <see cref="ForgetErrors"/>.</summary>
    public static string LoggedErrors() => string.Concat(Errors).Trim();

    private static nint Export(nint library, string name) => NativeLibrary.GetExport(library, name);

    [UnmanagedCallersOnly]
    private static void OnLog(int level, byte* text, void* userData)
    {
        if (level == ErrorLevel) Errors.Enqueue(Marshal.PtrToStringUTF8((nint)text) ?? "");
    }
}
