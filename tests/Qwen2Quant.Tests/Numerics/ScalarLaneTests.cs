using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Tests.Numerics;

/// <summary>Loads of small integers into one lane, in optimized code: the compiler must not read the bytes behind them.</summary>
public class ScalarLaneTests
{
    [Fact]
    public void LoadsReadNoMoreThanTheirOwnBytes()
    {
        byte[] bytes = [.. Enumerable.Range(0, 300).Select(static i => (byte)((i * 37) + 11))];
        ushort[] shorts = [.. bytes.Select(static value => (ushort)(value * 257))];
        for (int i = 0; i + 4 <= bytes.Length; i++)
        {
            Assert.Equal((bytes[i] & 15, bytes[i] >> 4), SplitByte(ref bytes[i]));
            Assert.Equal(((sbyte)bytes[i] & 15, (int)((uint)(sbyte)bytes[i] >> 4)), SplitSByte(ref bytes[i]));
            Assert.Equal((shorts[i] & 15, shorts[i] >> 4), SplitUShort(ref shorts[i]));
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static (int Low, int High) SplitByte(ref byte source) => Split(Lanes1.LoadBytes(ref source));

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static (int Low, int High) SplitSByte(ref byte source) => Split(Lanes1.LoadSBytes(ref source));

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static (int Low, int High) SplitUShort(ref ushort source) => Split(Lanes1.LoadUShorts(ref source));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static (int Low, int High) Split(Lanes1 value)
    {
        float low = 0, high = 0;
        Lanes1.Store(value & Lanes1.BroadcastInt(15), ref low);
        Lanes1.Store(Lanes1.ShiftRight(value, 4), ref high);
        return (BitConverter.SingleToInt32Bits(low), BitConverter.SingleToInt32Bits(high));
    }
}
