using Qwen2Quant.Core.Encoding;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Core.Tensors;

/// <summary>Types of one value each, little-endian, under ggml's names where ggml has them. A copy or a rounding knows no importance: the encoders take any.</summary>
public static class PlainTypes
{
    public static ElementType F64 { get; } = new PlainType<double>("F64", static value => (float)value);
    public static ElementType F32 { get; } = new F32Type();
    public static ElementType F16 { get; } = new SixteenBitType<HalfRows.Format>("F16", 65504f);
    public static ElementType BF16 { get; } = new SixteenBitType<BFloat16Rows.Format>("BF16", BitConverter.UInt32BitsToSingle(0x7f7f0000));

    /// <summary>1 sign, 4 exponent, 3 mantissa bits; no infinities, 0x7f and 0xff are NaN (OCP 8-bit floating point).</summary>
    public static ElementType F8E4M3 { get; } = new PlainType<byte>("F8_E4M3", static value => Float8.FromE4M3(value));

    /// <summary>1 sign, 5 exponent, 2 mantissa bits, with infinities and NaN as in IEEE.</summary>
    public static ElementType F8E5M2 { get; } = new PlainType<byte>("F8_E5M2", static value => Float8.FromE5M2(value));

    public static ElementType I8 { get; } = new PlainType<sbyte>("I8", static value => value);
    public static ElementType I16 { get; } = new PlainType<short>("I16", static value => value);
    public static ElementType I32 { get; } = new PlainType<int>("I32", static value => value);
    public static ElementType I64 { get; } = new PlainType<long>("I64", static value => value);
    public static ElementType U8 { get; } = new PlainType<byte>("U8", static value => value);
    public static ElementType U16 { get; } = new PlainType<ushort>("U16", static value => value);
    public static ElementType U32 { get; } = new PlainType<uint>("U32", static value => value);
    public static ElementType U64 { get; } = new PlainType<ulong>("U64", static value => value);
    public static ElementType Bool { get; } = new PlainType<byte>("BOOL", static value => value == 0 ? 0 : 1);

    private sealed class PlainType<T>(string name, Func<T, float> toFloat) : ElementType where T : unmanaged
    {
        public override string Name => name;
        public override int ValuesPerBlock => 1;
        public override unsafe int BytesPerBlock => sizeof(T);

        public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values)
        {
            CheckLengths(values.Length, blocks.Length);
            ReadOnlySpan<T> source = MemoryMarshal.Cast<byte, T>(blocks);
            for (int i = 0; i < values.Length; i++) values[i] = toFloat(source[i]);
        }
    }

    private sealed class F32Type : ElementType
    {
        public override string Name => "F32";
        public override int ValuesPerBlock => 1;
        public override int BytesPerBlock => 4;
        public override bool CanEncode => true;

        public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values)
        {
            CheckLengths(values.Length, blocks.Length);
            blocks.CopyTo(MemoryMarshal.AsBytes(values));
        }

        public override void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
        {
            CheckLengths(row.Length, blocks.Length);
            MemoryMarshal.AsBytes(row).CopyTo(blocks);
        }
    }

    private sealed class SixteenBitType<TFormat>(string name, float largestMagnitude) : ElementType where TFormat : ISixteenBitFormat
    {
        public override string Name => name;
        public override int ValuesPerBlock => 1;
        public override int BytesPerBlock => 2;
        public override bool CanEncode => true;

        public override float LargestMagnitude => largestMagnitude;

        public override void Decode(ReadOnlySpan<byte> blocks, Span<float> values)
        {
            CheckLengths(values.Length, blocks.Length);
            SixteenBitRows<TFormat>.Widen(Simd.Level, MemoryMarshal.Cast<byte, ushort>(blocks), values);
        }

        public override void EncodeRow(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks)
        {
            CheckLengths(row.Length, blocks.Length);
            SixteenBitRows<TFormat>.Narrow(Simd.Level, row, MemoryMarshal.Cast<byte, ushort>(blocks));
        }
    }
}
