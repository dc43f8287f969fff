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

    public GridShape Shape => new(Run, Run, 1, Float8.LevelsE4M3.Length, 0);

    /// <exception cref="ArgumentException">The scale is not positive.</exception>
    public static Fp8TensorType Of(float scale, ElementType scaleType, float inputScale = 0) =>
        scale > 0 && float.IsFinite(scale) ? Known.GetOrAdd((scale, scaleType, inputScale), static key => new Fp8TensorType(key.Item1, key.Item2, key.Item3)) : throw new ArgumentException($"a scale of {scale}", nameof(scale));

    /// <summary>For the largest magnitudes of weights and, unless 0, of inputs; scales are those that the type of scales can hold.</summary>
    public static Fp8TensorType Fitting(float largest, ElementType scaleType, float largestInput = 0) => Of(Stored(largest, scaleType), scaleType, largestInput > 0 ? Stored(largestInput, scaleType) : 0);

    public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        CheckLengths(values.Length, blocks.Length);
        Fp8Rows.Decode(Simd.Level, blocks, Scale, values);
    }

    /// <summary>Importance does not matter: there is nothing to fit.</summary>
    public override void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
    {
        CheckLengths(row.Length, blocks.Length);
        Fp8Rows.Encode(Simd.Level, row, Scale, blocks);
    }

    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
    }

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => new(-0f, Scale, Float8.LevelsE4M3.Length, 0, Float8.LevelsE4M3);

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        for (int i = 0; i < codes.Length; i++) block[i] = Float8.CodeAt(codes[i]);
    }

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        for (int i = 0; i < codes.Length; i++) codes[i] = (byte)Float8.PlaceOf(block[i]);
    }

    private static float Stored(float largest, ElementType scaleType)
    {
        float scale = largest > 0 ? largest / Float8.LargestE4M3 : 1;
        return ReferenceEquals(scaleType, PlainTypes.F32) ? scale : Math.Max(new StoredScale(scaleType).Round(scale), Fp8Type.LeastScale);
    }
}
