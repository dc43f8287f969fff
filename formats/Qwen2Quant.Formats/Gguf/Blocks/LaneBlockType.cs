using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>A block format: its name, its size, and the decoder of one block, written once over lanes of any width.</summary>
internal interface IBlockFormat
{
    static abstract string Name { get; }

    static abstract int BlockValues { get; }

    static abstract int BlockBytes { get; }

    static abstract void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>;
}

/// <summary>A block type whose decoder runs at the chosen vector width. <typeparamref name="TFormat"/> is a struct so that its kernels compile into the loops.</summary>
internal unsafe class LaneBlockType<TFormat> : BlockType where TFormat : struct, IBlockFormat
{
    public sealed override string Name => TFormat.Name;
    public sealed override int ValuesPerBlock => TFormat.BlockValues;
    public sealed override int BytesPerBlock => TFormat.BlockBytes;

    internal sealed override string DecoderNameAt(SimdLevel level) => ChooseDecoder(level).Name;

    private protected sealed override void DecodeBlocks(SimdLevel level, ReadOnlySpan<byte> blocks, Span<float> values) => ChooseDecoder(level).Run(blocks, values);

    private static Decoder ChooseDecoder(SimdLevel level) =>
        level >= SimdLevel.Avx512 ? Decoder.Of<Lanes512>()
        : level >= SimdLevel.Avx2 ? Decoder.Of<Lanes256>()
        : level >= SimdLevel.Vector128 ? Decoder.Of<Lanes128>()
        : Decoder.Of<Lanes1>();

    private static void DecodeBlocks<T>(ReadOnlySpan<byte> blocks, Span<float> values) where T : unmanaged, ILanes<T>
    {
        ref byte from = ref MemoryMarshal.GetReference(blocks);
        ref float to = ref MemoryMarshal.GetReference(values);
        int count = values.Length / TFormat.BlockValues;
        for (int n = 0; n < count; n++) TFormat.DecodeBlock<T>(ref Unsafe.Add(ref from, n * TFormat.BlockBytes), ref Unsafe.Add(ref to, n * TFormat.BlockValues));
    }

    private readonly struct Decoder
    {
        public string Name { get; private init; }
        public delegate*<ReadOnlySpan<byte>, Span<float>, void> Run { get; private init; }

        public static Decoder Of<T>() where T : unmanaged, ILanes<T> => new() { Name = T.Name, Run = &DecodeBlocks<T> };
    }
}
