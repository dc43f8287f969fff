using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>A block format that is written: its grid, its layout, and the encoder of a few blocks together.</summary>
internal interface ICodecFormat : IBlockFormat
{
    /// <summary>Blocks encoded together.</summary>
    static abstract int BatchBlocks { get; }

    static abstract float LargestMagnitude { get; }

    static abstract GridShape Shape { get; }

    /// <summary>Encodes at most <see cref="BatchBlocks"/> blocks. <paramref name="importance"/> is empty or one weight for each value.</summary>
    /// <param name="rowVariance">Mean square of the whole row, 0 without importance and at other efforts than <see cref="Effort.Reference"/>.</param>
    static abstract void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>;

    static abstract void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters);

    static abstract Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock);

    /// <summary>See <see cref="IQuantGrid.Store"/>.</summary>
    static abstract float StoreParameter(int parameter, float value);

    /// <summary>See <see cref="IQuantGrid.SubBlocksOf"/>.</summary>
    static virtual (int First, int Count) SubBlocksOf(int parameter) => Parameters.OfBlock;

    static abstract void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block);

    static abstract void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters);
}

/// <summary>A block type whose encoder runs at the chosen vector width.</summary>
/// <param name="integers">How its rows read as integers, where they do.</param>
internal unsafe class LaneCodecType<TFormat>(IntegerForm? integers = null) : LaneBlockType<TFormat>, IBlockCodec where TFormat : struct, ICodecFormat
{
    public sealed override IntegerForm? Integers => integers;
    public override bool CanEncode => true;
    public override float LargestMagnitude => TFormat.LargestMagnitude;
    public sealed override IBlockCodec Codec => this;

    public GridShape Shape => TFormat.Shape;

    public void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        CheckLength(block.Length, TFormat.BlockValues, nameof(block));
        if (importance.Length != 0) CheckLength(importance.Length, TFormat.BlockValues, nameof(importance));
        TFormat.Fit(block, importance, effort, parameters);
    }

    public Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock) => TFormat.GetLevels(parameters, subBlock);

    public float Store(int parameter, float value) => TFormat.StoreParameter(parameter, value);

    public (int First, int Count) SubBlocksOf(int parameter) =>
        TFormat.SubBlocksOf(parameter) is (>= 0, _) some ? some : (0, TFormat.Shape.BlockLength / TFormat.Shape.SubBlockLength);

    public void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        CheckLength(codes.Length, TFormat.BlockValues, nameof(codes));
        CheckLength(block.Length, TFormat.BlockBytes, nameof(block));
        TFormat.Pack(codes, parameters, block);
    }

    public void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        CheckLength(block.Length, TFormat.BlockBytes, nameof(block));
        CheckLength(codes.Length, TFormat.BlockValues, nameof(codes));
        TFormat.Unpack(block, codes, parameters);
    }

    internal override string EncoderNameAt(SimdLevel level) => ChooseEncoder(level).Name;

    private protected override void EncodeBlocks(SimdLevel level, ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) =>
        ChooseEncoder(level).Run(row, importance, effort, blocks);

    private static Encoder ChooseEncoder(SimdLevel level) =>
        level >= SimdLevel.Avx512 ? Encoder.Of<Lanes512>()
        : level >= SimdLevel.Avx2 ? Encoder.Of<Lanes256>()
        : level >= SimdLevel.Vector128 ? Encoder.Of<Lanes128>()
        : Encoder.Of<Lanes1>();

    private static void EncodeBlocks<T>(ReadOnlySpan<float> row, ReadOnlySpan<float> importance, Effort effort, Span<byte> blocks) where T : unmanaged, ILanes<T>
    {
        float rowVariance = importance.IsEmpty || effort != Effort.Reference ? 0 : MeanSquare(row);
        int batchValues = TFormat.BatchBlocks * TFormat.BlockValues;
        for (int start = 0; start < row.Length; start += batchValues)
        {
            int length = Math.Min(batchValues, row.Length - start);
            ref byte to = ref Unsafe.Add(ref MemoryMarshal.GetReference(blocks), start / TFormat.BlockValues * TFormat.BlockBytes);
            TFormat.EncodeBatch<T>(row.Slice(start, length), importance.IsEmpty ? importance : importance.Slice(start, length), rowVariance, effort, ref to);
        }
    }

    // One sum in index order, as ggml's: it decides the last bit of every weight.
    private static float MeanSquare(ReadOnlySpan<float> row)
    {
        float sum = 0;
        foreach (float value in row) sum += value * value;
        return sum / row.Length;
    }

    private static void CheckLength(int found, int expected, string name)
    {
        if (found != expected) throw new ArgumentException($"{found} elements where a block of {TFormat.Name} has {expected}", name);
    }

    private readonly struct Encoder
    {
        public string Name { get; private init; }
        public delegate*<ReadOnlySpan<float>, ReadOnlySpan<float>, Effort, Span<byte>, void> Run { get; private init; }

        public static Encoder Of<T>() where T : unmanaged, ILanes<T> => new() { Name = T.Name, Run = &EncodeBlocks<T> };
    }
}
