using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Benchmarking;

/// <summary>
/// Encoding with each effort and decoding, on one thread, of values that stay in a core's caches. Two ceilings bind a codec: moving its bytes, and
/// arithmetic. The first is a share; of the second it is known what the codec costs, in operations that a matrix product does in the same time.
/// </summary>
internal static class CodecSpeeds
{
    /// <summary>Large enough for whole batches of every block, small enough for a second-level cache beside the encoded form.</summary>
    private const int ValueCount = 1 << 14;

    public static string EncodeName(ElementType type) => $"{type.Name.ToLowerInvariant()}.encode";

    public static string DecodeName(ElementType type) => $"{type.Name.ToLowerInvariant()}.decode";

    public static IReadOnlyList<BenchmarkFigure> Run(BenchmarkOptions options, RunContext context)
    {
        float[] weights = new float[ValueCount], decoded = new float[ValueCount];
        Random random = new(1);
        for (int i = 0; i < weights.Length; i++) weights[i] = (float)((random.NextDouble() + random.NextDouble() - 1) * 0.05);
        BenchmarkFigure copy = Ceilings.CachedCopy(ValueCount * sizeof(float), options, context);
        BenchmarkFigure product = Ceilings.MatrixProduct(1, options, context);
        List<BenchmarkFigure> figures = [copy, product];
        foreach (ElementType type in GgmlTypes.All.Select(type => type.Element).Where(type => type.CanEncode || (type.CanDecode && type.IsQuantized)))
        {
            byte[] blocks = new byte[type.ByteCount(ValueCount)];
            random.NextBytes(blocks);
            if (type.CanDecode) Add(DecodeName(type), () => type.Decode(blocks, decoded));
            if (!type.CanEncode) continue;
            foreach (Effort effort in type.IsQuantized ? Enum.GetValues<Effort>() : [Effort.Reference])
            {
                string name = type.IsQuantized ? $"{EncodeName(type)}.{effort.ToString().ToLowerInvariant()}" : EncodeName(type);
                Add(name, () => type.EncodeRow(weights, [], effort, blocks));
            }

            void Add(string name, Action action)
            {
                double valuesPerSecond = ValueCount / BestOf.Seconds(options.Budget, action, context.Cancellation);
                figures.Add(new("codecs", name, valuesPerSecond / 1e6, "Mvalues/s")
                {
                    MemoryShare = valuesPerSecond * (sizeof(float) + (type.BitsPerWeight / 8)) / (copy.Value * 1e9),
                    OperationsPerValue = product.Value * 1e9 / valuesPerSecond,
                });
            }
        }

        return figures;
    }
}
