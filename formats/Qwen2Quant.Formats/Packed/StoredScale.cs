using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf.Blocks;

namespace Qwen2Quant.Formats.Packed;

/// <summary>A scale in the bytes of a plain type.</summary>
/// <param name="type">F16, BF16 or F32.</param>
internal readonly struct StoredScale(ElementType type)
{
    private readonly bool _isSingle = ReferenceEquals(type, PlainTypes.F32);

    public bool IsHalf { get; } = ReferenceEquals(type, PlainTypes.F16);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public float Read(ReadOnlySpan<byte> bytes)
    {
        if (_isSingle) return BinaryPrimitives.ReadSingleLittleEndian(bytes);
        uint bits = BinaryPrimitives.ReadUInt16LittleEndian(bytes);
        return IsHalf ? Field.HalfAt(in bytes[0], 0) : BitConverter.UInt32BitsToSingle(bits << 16);
    }

    public void Write(float value, Span<byte> bytes)
    {
        if (_isSingle) BinaryPrimitives.WriteSingleLittleEndian(bytes, value);
        else BinaryPrimitives.WriteUInt16LittleEndian(bytes, IsHalf ? BitConverter.HalfToUInt16Bits((Half)value) : BFloat16Rows.Narrow(value));
    }

    /// <summary>The nearest value that can be stored, of halves the nearest finite one.</summary>
    public float Round(float value)
    {
        if (_isSingle) return value;
        return IsHalf ? StoredHalf.Round(value) : BitConverter.UInt32BitsToSingle((uint)BFloat16Rows.Narrow(value) << 16);
    }

    /// <summary>As <see cref="Round(float)"/>, lane by lane, for types of 16 bits.</summary>
    public T Round<T>(T value) where T : unmanaged, ILanes<T>
    {
        if (IsHalf) return StoredHalf.Round(value);
        // To the upper half of the float, ties to even.
        T rounded = T.AddInt(T.AddInt(value, T.BroadcastInt(0x7fff)), T.ShiftRight(value, 16) & T.BroadcastInt(1));
        return rounded & T.BroadcastInt(unchecked((int)0xffff0000));
    }
}
