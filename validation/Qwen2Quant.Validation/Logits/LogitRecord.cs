using System.Buffers.Binary;
using System.Numerics.Tensors;
using System.Runtime.InteropServices;
using Qwen2Quant.Validation.Numerics;

namespace Qwen2Quant.Validation;

/// <summary>
/// The log-probabilities of one position in 16 bits each, as llama-perplexity stores them: <c>scale x code + least</c>, where
/// <c>least</c> stands for the smallest logit or for 16 nats below the largest, whichever is greater; codes run to 65535 at the largest.
/// All arithmetic is in single precision, codes are rounded to even.
/// </summary>
public static class LogitRecord
{
    /// <summary>Bytes of scale and least log-probability.</summary>
    public const int HeadBytes = 2 * sizeof(float);

    /// <summary>Nats below the largest logit under which all log-probabilities are one.</summary>
    public const float Depth = 16;

    /// <summary>Log-probabilities up to here do not count in a divergence.</summary>
    public const float LeastCounted = -16;

    /// <summary>What stands for a log-probability that does not count: its probability vanishes in every sum.</summary>
    private const float Vanishing = -1000;

    /// <param name="logits">One for each token of the vocabulary.</param>
    /// <param name="record">Receives the record, its unused code included. Rows that are not finite become zeros: no run accepts them.</param>
    public static void Encode(ReadOnlySpan<float> logits, Span<byte> record)
    {
        record.Clear();
        float maximum = SoftmaxRows.Maximum(logits);
        if (float.IsNaN(maximum)) return;
        float floor = Math.Max(TensorPrimitives.Min(logits), maximum - Depth);
        float logSum = (float)Math.Log(SoftmaxRows.SumOfExponentials(logits, maximum));
        float scale = (maximum - floor) / ushort.MaxValue;
        BinaryPrimitives.WriteSingleLittleEndian(record, scale);
        BinaryPrimitives.WriteSingleLittleEndian(record[sizeof(float)..], floor - maximum - logSum);
        float inverse = 1 / scale;
        if (!float.IsFinite(inverse)) return;
        Span<ushort> codes = MemoryMarshal.Cast<byte, ushort>(record[HeadBytes..]);
        for (int id = 0; id < logits.Length; id++) codes[id] = (ushort)MathF.Round(Math.Max((logits[id] - floor) * inverse, 0));
    }

    /// <summary>The log-probability of one token.</summary>
    public static float Decode(ReadOnlySpan<byte> record, int id) =>
        (Scale(record) * BinaryPrimitives.ReadUInt16LittleEndian(record[(HeadBytes + (sizeof(ushort) * id))..])) + Least(record);

    /// <summary>All log-probabilities; those that do not count in a divergence are far below every other.</summary>
    public static void DecodeCounted(ReadOnlySpan<byte> record, Span<float> logProbabilities)
    {
        float scale = Scale(record), least = Least(record);
        ReadOnlySpan<ushort> codes = MemoryMarshal.Cast<byte, ushort>(record[HeadBytes..]);
        for (int id = 0; id < logProbabilities.Length; id++)
        {
            float value = (scale * codes[id]) + least;
            logProbabilities[id] = value > LeastCounted ? value : Vanishing;
        }
    }

    private static float Scale(ReadOnlySpan<byte> record) => BinaryPrimitives.ReadSingleLittleEndian(record);

    private static float Least(ReadOnlySpan<byte> record) => BinaryPrimitives.ReadSingleLittleEndian(record[sizeof(float)..]);
}
