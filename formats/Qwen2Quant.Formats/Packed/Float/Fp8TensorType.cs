using System.Collections.Concurrent;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Float;

/// <summary>E4M3 values under one scale for the whole matrix, which the type knows: value <c>scale * code</c>. In memory rows are the bytes of the file. There is one object for each scale, so that equal types are the same.</summary>
public sealed class Fp8TensorType : ElementType, IBlockCodec
{
    /// <summary>Values handled together; nothing else depends on it.</summary>
    private const int Run = 32;

    private static readonly ConcurrentDictionary<(float, ElementType, float), Fp8TensorType> Known = new();

    private Fp8TensorType(float scale, ElementType scaleType, float inputScale) => (Scale, ScaleType, InputScale) = (scale, scaleType, inputScale);

    public float Scale { get; }

    /// <summary>How the scales are stored: F16, BF16 or F32.</summary>
    public ElementType ScaleType { get; }

    /// <summary>The scale of the inputs, for readers that quantize these by it; 0 where they find one as they go.</summary>
    public float InputScale { get; }

    public override string Name => "FP8_TENSOR";
    public override int ValuesPerBlock => Run;
    public override int BytesPerBlock => Run;
    public override bool CanEncode => true;

    /// <summary>Values beyond the range of the planned scale become its end, as they may where they are rescaled after the plan.</summary>
    public override float LargestMagnitude => float.MaxValue / 4;

    public GridShape Shape => new(Run, Run, 1, Fp8Codes.Table.Length, 0);

    /// <exception cref="ArgumentException">The scale is not positive.</exception>
    public static Fp8TensorType Of(float scale, ElementType scaleType, float inputScale = 0) =>
        scale > 0 && float.IsFinite(scale) ? Known.GetOrAdd((scale, scaleType, inputScale), static key => new Fp8TensorType(key.Item1, key.Item2, key.Item3)) : throw new ArgumentException($"a scale of {scale}", nameof(scale));

    /// <summary>For the largest magnitudes of weights and, unless 0, of inputs; scales are those that the type of scales can hold.</summary>
    public static Fp8TensorType Fitting(float largest, ElementType scaleType, float largestInput = 0) => Of(Stored(largest, scaleType), scaleType, largestInput > 0 ? Stored(largestInput, scaleType) : 0);

    private static float Stored(float largest, ElementType scaleType)
    {
        Span<float> scale = [largest > 0 ? largest / Float8.LargestE4M3 : 1];
        if (ReferenceEquals(scaleType, PlainTypes.F32)) return scale[0];
        Span<byte> bytes = stackalloc byte[scaleType.BytesPerBlock];
        scaleType.EncodeRow(scale, default, Effort.Reference, bytes);
        scaleType.Decode(bytes, scale);
        return Math.Max(scale[0], 1f / (1 << 24));
    }

    public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        CheckLengths(values.Length, blocks.Length);
        for (int i = 0; i < values.Length; i++) values[i] = Scale * Fp8Codes.Values[blocks[i]];
    }

    /// <summary>Importance does not matter: there is nothing to fit.</summary>
    public override void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
    {
        CheckLengths(row.Length, blocks.Length);
        float inverse = 1 / Scale;
        for (int i = 0; i < row.Length; i++) blocks[i] = Float8.ToE4M3(row[i] * inverse);
    }

    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
    }

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => new(-0f, Scale, Fp8Codes.Table.Length, 0, Fp8Codes.Table);

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        for (int i = 0; i < codes.Length; i++) block[i] = Fp8Codes.Sorted[codes[i]];
    }

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        for (int i = 0; i < codes.Length; i++) codes[i] = Fp8Codes.Places[block[i]];
    }

    private void CheckLengths(int valueCount, int byteCount)
    {
        if (valueCount % Run != 0 || valueCount != byteCount) throw new ArgumentException($"{valueCount} values of {Name} are not {byteCount} bytes");
    }
}

/// <summary>The finite codes of E4M3 in the order of their values, as a solver counts them.</summary>
internal static class Fp8Codes
{
    /// <summary>Minus zero lies before zero.</summary>
    public static readonly byte[] Sorted = [.. Enumerable.Range(0, 256).Where(code => (code & 0x7F) != 0x7F).OrderBy(code => Float8.FromE4M3((byte)code)).ThenByDescending(code => code).Select(code => (byte)code)];

    /// <summary>The place of each code there.</summary>
    public static readonly byte[] Places = [.. Enumerable.Range(0, 256).Select(code => (byte)Math.Max(Array.IndexOf(Sorted, (byte)code), 0))];

    public static readonly float[] Table = [.. Sorted.Select(Float8.FromE4M3)];

    /// <summary>By code, NaN included.</summary>
    public static readonly float[] Values = [.. Enumerable.Range(0, 256).Select(code => Float8.FromE4M3((byte)code))];
}
