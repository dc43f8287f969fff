using System.Collections.Concurrent;
using System.Numerics.Tensors;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf.Blocks;

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

    /// <summary>The E4M3 code of 448.</summary>
    private const byte LargestScale = 0x7E;

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

    public override void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) => EncodeRow(Simd.Level, row, importance, effort, blocks);

    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<byte> scales = stackalloc byte[Search.Stride];
        FitGroups(Simd.Level, block, importance, effort, scales);
        parameters[0] = Float8.FromE4M3(scales[0]) / Divisor;
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

    internal void EncodeRow(SimdLevel level, ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
    {
        const int batch = Search.Stride * GroupLength;
        Span<byte> scales = stackalloc byte[Search.Stride];
        for (int first = 0; first < row.Length; first += batch)
        {
            ReadOnlySpan<float> groups = row.Slice(first, Math.Min(batch, row.Length - first));
            FitGroups(level, groups, importance.IsEmpty ? importance : importance.Slice(first, groups.Length), effort, scales);
            for (int group = 0; group < groups.Length / GroupLength; group++)
            {
                Span<byte> block = blocks.Slice(((first / GroupLength) + group) * BytesPerBlock, BytesPerBlock);
                block[0] = scales[group];
                float scale = Float8.FromE4M3(scales[group]) / Divisor;
                ReadOnlySpan<float> values = groups.Slice(group * GroupLength, GroupLength);
                for (int i = 0; i < GroupLength; i += 2) block[1 + (i / 2)] = (byte)(Nibble(Nearest(values[i] / scale)) | (Nibble(Nearest(values[i + 1] / scale)) << 4));
            }
        }
    }

    /// <summary>The stored scale of each of up to 16 groups with the least weighted squared error: that of the largest magnitude, and, with more effort, its neighbours.</summary>
    private void FitGroups(SimdLevel level, ReadOnlySpan<float> groups, ReadOnlySpan<float> importance, Effort effort, Span<byte> scales)
    {
        int count = groups.Length / GroupLength;
        for (int group = 0; group < count; group++)
        {
            float largest = MathF.Abs(TensorPrimitives.MaxMagnitude(groups.Slice(group * GroupLength, GroupLength)));
            scales[group] = largest == 0 ? (byte)0x20 : Math.Clamp(Float8.ToE4M3(largest / LargestCode * Divisor), (byte)1, LargestScale);
        }

        scales[count..].Fill(1);
        if (effort == Effort.Reference) return;
        Span<float> values = stackalloc float[Search.Stride * GroupLength], weights = stackalloc float[Search.Stride * GroupLength];
        Search.Transpose(groups, GroupLength, values);
        if (importance.IsEmpty) weights.Fill(1);
        else Search.Transpose(importance, GroupLength, weights);
        if (level >= SimdLevel.Avx512) FitLanes<Lanes512>(values, weights, effort, scales);
        else if (level >= SimdLevel.Avx2) FitLanes<Lanes256>(values, weights, effort, scales);
        else if (level >= SimdLevel.Vector128) FitLanes<Lanes128>(values, weights, effort, scales);
        else FitLanes<Lanes1>(values, weights, effort, scales);
    }

    private void FitLanes<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> weights, Effort effort, Span<byte> scales) where T : unmanaged, ILanes<T>
    {
        (int below, int above) = effort switch { Effort.Fast => (2, 5), Effort.Normal => (5, 8), _ => (20, 10) };
        Span<float> steps = stackalloc float[Search.Stride], errors = stackalloc float[Search.Stride], best = stackalloc float[Search.Stride];
        Span<byte> kept = stackalloc byte[Search.Stride];
        best.Fill(float.PositiveInfinity);
        for (int offset = -below; offset <= above; offset++)
        {
            // Levels are in doubled units.
            for (int group = 0; group < Search.Stride; group++) steps[group] = Float8.FromE4M3((byte)Math.Clamp(scales[group] + offset, 1, LargestScale)) / Divisor / 2;
            for (int group = 0; group < Search.Stride; group += T.Width)
            {
                T step = T.Load(in steps[group]);
                T.Store(Fp4.Error(in values[group], in weights[group], GroupLength, T.Broadcast(1) / step) * step * step, ref errors[group]);
            }

            for (int group = 0; group < Search.Stride; group++)
            {
                if (errors[group] >= best[group]) continue;
                best[group] = errors[group];
                kept[group] = (byte)Math.Clamp(scales[group] + offset, 1, LargestScale);
            }
        }

        kept.CopyTo(scales);
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
