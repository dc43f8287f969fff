using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Gguf.Blocks;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Benchmarking;

/// <summary>What this machine can do, and how near this program comes to it.</summary>
public static class MachineBenchmark
{
    /// <summary>The kernels that this process has chosen, each as <c>name: form</c>.</summary>
    public static IReadOnlyList<string> Kernels()
    {
        List<string> kernels = [$"matrix-product: {MatrixProduct.KernelName}"];
        foreach (BlockType type in BlockTypes)
        {
            kernels.Add($"{CodecSpeeds.DecodeName(type)}: {type.DecoderName}");
            if (type.EncoderName is { } encoder) kernels.Add($"{CodecSpeeds.EncodeName(type)}: {encoder}");
        }

        return kernels;
    }

    internal static IEnumerable<BlockType> BlockTypes => GgmlTypes.All.Select(type => type.Element).OfType<BlockType>();

    /// <summary>Measures one group.</summary>
    /// <exception cref="OperationCanceledException">Between two measurements.</exception>
    public static IReadOnlyList<BenchmarkFigure> Run(BenchmarkGroup group, BenchmarkOptions options, RunContext context) => group switch
    {
        BenchmarkGroup.Kernels => [],
        BenchmarkGroup.Matmul => [.. new[] { 1, context.Threads }.Distinct().Select(threads => Ceilings.MatrixProduct(threads, options, context))],
        BenchmarkGroup.Memory => [Ceilings.MemoryCopy(options, context)],
        BenchmarkGroup.Disk => [Ceilings.DiskWrite(options, context)],
        BenchmarkGroup.Codecs => CodecSpeeds.Run(options, context),
        BenchmarkGroup.Attention => AttentionSpeed.Run(options, context),
        BenchmarkGroup.Forward => [ForwardSpeed.Run(options, context)],
        BenchmarkGroup.Gptq => GptqSpeed.Run(options, context),
        _ => throw new ArgumentOutOfRangeException(nameof(group)),
    };
}
