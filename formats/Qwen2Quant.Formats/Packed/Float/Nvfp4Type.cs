using System.Collections.Concurrent;
using System.Numerics.Tensors;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Float;

/// <summary>
/// NVFP4 as compressed-tensors has it: E2M1 values in groups of 16 under an E4M3 scale, all under one divisor for the matrix: value <c>code * scale / divisor</c>.
/// In memory a block is the scale and 8 bytes, the even value in the low nibble. There is one object for each divisor, so that equal types are the same.
/// </summary>
public sealed class Nvfp4Type : ElementType, IBlockCodec
{
    public const int GroupLength = 16;

    /// <summary>The largest magnitude of E2M1.</summary>
    private const float LargestCode = 6;

    private static readonly ConcurrentDictionary<float, Nvfp4Type> Known = new();

    private static readonly float[] Magnitudes = [0, 0.5f, 1, 1.5f, 2, 3, 4, 6];

    /// <summary>Levels by code of the grid, which ascend: minus zero is not used.</summary>
    private static readonly float[] Table = [.. Magnitudes.Skip(1).Select(value => -value).Order(), .. Magnitudes];

    private Nvfp4Type(float divisor) => Divisor = divisor;

    /// <summary><c>weight_global_scale</c>: 448 x 6 over the largest magnitude.</summary>
    public float Divisor { get; }

    public override string Name => "NVFP4_GLOBAL";
    public override int ValuesPerBlock => GroupLength;
    public override int BytesPerBlock => 1 + (GroupLength / 2);
    public override bool CanEncode => true;

    /// <summary>Values beyond the range of the planned scale become its end, as they may where they are rescaled after the plan.</summary>
    public override float LargestMagnitude => float.MaxValue / 4;

    public GridShape Shape => new(GroupLength, GroupLength, 1, Table.Length, 1);

    /// <exception cref="ArgumentException">The divisor is not positive.</exception>
    public static Nvfp4Type Of(float divisor) => divisor > 0 && float.IsFinite(divisor) ? Known.GetOrAdd(divisor, static key => new Nvfp4Type(key)) : throw new ArgumentException($"a divisor of {divisor}", nameof(divisor));

    public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values)
    {
        for (int group = 0; group < values.Length / GroupLength; group++)
        {
            ReadOnlySpan<byte> block = blocks.Slice(group * BytesPerBlock, BytesPerBlock);
            float scale = Float8.FromE4M3(block[0]) / Divisor;
            for (int i = 0; i < GroupLength; i++)
            {
                int nibble = (block[1 + (i / 2)] >> (i % 2 * 4)) & 15;
                float magnitude = Magnitudes[nibble & 7] * scale;
                values[(group * GroupLength) + i] = nibble > 7 ? -magnitude : magnitude;
            }
        }
    }

    public override void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
    {
        Span<float> parameters = stackalloc float[1];
        Span<byte> codes = stackalloc byte[GroupLength];
        for (int group = 0; group < row.Length / GroupLength; group++)
        {
            ReadOnlySpan<float> values = row.Slice(group * GroupLength, GroupLength);
            Fit(values, importance.IsEmpty ? importance : importance.Slice(group * GroupLength, GroupLength), effort, parameters);
            for (int i = 0; i < GroupLength; i++) codes[i] = (byte)Nearest(values[i] / parameters[0]);
            Pack(codes, parameters, blocks.Slice(group * BytesPerBlock, BytesPerBlock));
        }
    }

    /// <summary>The stored scale with the least weighted squared error: that of the largest magnitude, and, with more effort, its neighbours.</summary>
    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        float largest = MathF.Abs(TensorPrimitives.MaxMagnitude(block));
        int first = largest == 0 ? 0x20 : Float8.ToE4M3(largest / LargestCode * Divisor);
        (int below, int above) = effort switch { Effort.Reference => (0, 0), Effort.Fast => (2, 1), Effort.Normal => (4, 2), _ => (8, 4) };
        double best = double.MaxValue;
        for (int code = Math.Max(first - below, 1); code <= Math.Min(first + above, 0x7E); code++)
        {
            float scale = Float8.FromE4M3((byte)code) / Divisor;
            double error = 0;
            for (int i = 0; i < block.Length; i++)
            {
                double difference = (Table[Nearest(block[i] / scale)] * scale) - block[i];
                error += difference * difference * (importance.IsEmpty ? 1 : importance[i]);
            }

            if (error >= best) continue;
            best = error;
            parameters[0] = scale;
        }
    }

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => new(-0f, parameters[0], Table.Length, 0, Table);

    public float Store(int parameter, float value) => Float8.FromE4M3(Math.Max(Float8.ToE4M3(Math.Max(value, 0) * Divisor), (byte)1)) / Divisor;

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        block[0] = Float8.ToE4M3(parameters[0] * Divisor);
        for (int i = 0; i < GroupLength; i += 2) block[1 + (i / 2)] = (byte)(Nibble(codes[i]) | (Nibble(codes[i + 1]) << 4));
    }

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        parameters[0] = Float8.FromE4M3(block[0]) / Divisor;
        for (int i = 0; i < GroupLength; i++)
        {
            int nibble = (block[1 + (i / 2)] >> (i % 2 * 4)) & 15;
            codes[i] = (byte)(nibble > 7 ? 7 - (nibble & 7) : 7 + nibble);
        }
    }

    private static int Nibble(int code) => code < 7 ? 15 - code : code - 7;

    /// <summary>The nearest level, ties to the even code.</summary>
    private static int Nearest(float value)
    {
        float magnitude = MathF.Abs(value);
        int code = magnitude switch { <= 0.25f => 0, < 0.75f => 1, <= 1.25f => 2, < 1.75f => 3, <= 2.5f => 4, < 3.5f => 5, <= 5 => 6, _ => 7 };
        return value < 0 ? 7 - code : 7 + code;
    }
}
