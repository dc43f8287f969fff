using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Benchmarking;

/// <summary>Encoding and decoding on one thread, of values that stay in a core's caches; speeds count the single-precision side, 4 bytes a value.</summary>
internal static class CodecSpeeds
{
    private const int ValueCount = 1 << 15;
    private const string Unit = "GB/s of F32";

    public static string EncodeName(ElementType type) => $"{type.Name.ToLowerInvariant()}.encode";

    public static string DecodeName(ElementType type) => $"{type.Name.ToLowerInvariant()}.decode";

    public static IReadOnlyList<BenchmarkFigure> Run(BenchmarkOptions options, RunContext context)
    {
        float[] weights = new float[ValueCount], decoded = new float[ValueCount];
        Random random = new(1);
        for (int i = 0; i < weights.Length; i++) weights[i] = (float)((random.NextDouble() + random.NextDouble() - 1) * 0.05);
        List<BenchmarkFigure> figures = [];
        foreach (ElementType type in GgmlTypes.All.Select(type => type.Element).Where(type => type.CanEncode || (type.CanDecode && type.IsQuantized)))
        {
            byte[] blocks = new byte[type.ByteCount(ValueCount)];
            if (type.CanEncode) Add(EncodeName(type), () => type.EncodeRow(weights, [], Effort.Reference, blocks));
            else random.NextBytes(blocks);
            if (type.CanDecode) Add(DecodeName(type), () => type.Decode(blocks, decoded));
        }

        return figures;

        void Add(string name, Action action) =>
            figures.Add(new("codecs", name, ValueCount * sizeof(float) / BestOf.Seconds(options.Budget, action, context.Cancellation) / 1e9, Unit));
    }
}
