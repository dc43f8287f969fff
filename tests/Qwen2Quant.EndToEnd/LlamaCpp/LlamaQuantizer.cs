using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Qwen2Quant.EndToEnd.LlamaCpp;

/// <summary>What llama-quantize's options are called here. Tensor types are ggml's numeric ids.</summary>
public sealed record LlamaQuantizeOptions
{
    public int ThreadCount { get; init; } = 2;
    public bool Pure { get; init; }
    public bool AllowRequantize { get; init; }
    public bool LeaveOutputTensor { get; init; }
    public bool KeepSplit { get; init; }
    public int? OutputTensorType { get; init; }
    public int? TokenEmbeddingType { get; init; }

    /// <summary>Regular expressions on tensor names, first match wins.</summary>
    public IReadOnlyList<(string Pattern, int Type)> TensorTypes { get; init; } = [];

    /// <summary>Mean squared inputs by GGUF tensor name: a row's length of floats, for stacked experts one after the other.</summary>
    public IReadOnlyDictionary<string, float[]> Imatrix { get; init; } = new Dictionary<string, float[]>();
}

/// <summary><c>llama_model_quantize</c>, what llama-quantize is made of.</summary>
public static unsafe class LlamaQuantizer
{
    /// <summary>Quantizes a GGUF file and returns how long the call took; the output is not flushed to the disk.</summary>
    /// <param name="fileType">A name of <see cref="LlamaFileTypes"/>.</param>
    /// <exception cref="InvalidOperationException">llama.cpp refused, with what it logged.</exception>
    public static TimeSpan Quantize(string inputPath, string outputPath, string fileType, LlamaQuantizeOptions? options = null)
    {
        options ??= new LlamaQuantizeOptions();
        QuantizeParameters parameters = LlamaApi.QuantizeDefaults();
        if (parameters.QuantizeOutputTensor != 1 || parameters.AllowRequantize != 0 || parameters.OutputTensorType != parameters.TokenEmbeddingType)
        {
            throw new InvalidOperationException("llama_model_quantize_params of this llama.cpp has another layout");
        }

        parameters.ThreadCount = options.ThreadCount;
        parameters.FileType = LlamaFileTypes.Find(fileType);
        parameters.Pure = options.Pure ? (byte)1 : (byte)0;
        parameters.AllowRequantize = options.AllowRequantize ? (byte)1 : (byte)0;
        parameters.QuantizeOutputTensor = options.LeaveOutputTensor ? (byte)0 : (byte)1;
        parameters.KeepSplit = options.KeepSplit ? (byte)1 : (byte)0;
        parameters.OutputTensorType = options.OutputTensorType ?? parameters.OutputTensorType;
        parameters.TokenEmbeddingType = options.TokenEmbeddingType ?? parameters.TokenEmbeddingType;

        List<GCHandle> pins = [];
        try
        {
            if (options.Imatrix.Count > 0) parameters.Imatrix = Pin(pins, ImatrixList(pins, options.Imatrix));
            if (options.TensorTypes.Count > 0) parameters.TensorTypeOverrides = Pin(pins, OverrideList(pins, options.TensorTypes));
            LlamaApi.ForgetErrors();
            long start = Stopwatch.GetTimestamp();
            uint status;
            fixed (byte* input = LlamaApi.ToNative(inputPath))
            fixed (byte* output = LlamaApi.ToNative(outputPath)) status = LlamaApi.QuantizeModel(input, output, &parameters);
            TimeSpan elapsed = Stopwatch.GetElapsedTime(start);
            return status == 0 ? elapsed : throw new InvalidOperationException($"llama_model_quantize failed with {status}: {LlamaApi.LoggedErrors()}");
        }
        finally
        {
            foreach (GCHandle pin in pins) pin.Free();
        }
    }

    private static ImatrixEntry[] ImatrixList(List<GCHandle> pins, IReadOnlyDictionary<string, float[]> imatrix) =>
    [
        .. imatrix.Select(entry => new ImatrixEntry
        {
            Name = Pin(pins, LlamaApi.ToNative(entry.Key)),
            Values = Pin(pins, entry.Value),
            ValueCount = (nuint)entry.Value.Length,
        }),
        default,
    ];

    private static TensorTypeOverride[] OverrideList(List<GCHandle> pins, IReadOnlyList<(string Pattern, int Type)> overrides) =>
    [
        .. overrides.Select(entry => new TensorTypeOverride { Pattern = Pin(pins, LlamaApi.ToNative(entry.Pattern)), Type = entry.Type }),
        default,
    ];

    private static nint Pin(List<GCHandle> pins, Array array)
    {
        GCHandle pin = GCHandle.Alloc(array, GCHandleType.Pinned);
        pins.Add(pin);
        return pin.AddrOfPinnedObject();
    }
}
