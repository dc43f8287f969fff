using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

public unsafe class KvCacheTests
{
    private static readonly Qwen2Config Large = new() { HiddenSize = 8192, NumAttentionHeads = 64, NumKeyValueHeads = 8, HeadDim = 128, NumHiddenLayers = 80 };

    [Theory]
    [InlineData(131_072, 80L * 2 * 131_072 * 1024 * 4)]
    [InlineData(1_000_000, 80L * 2 * 1_000_000 * 1024 * 4)]
    public void BytesOfLongTexts(int tokens, long expected)
    {
        Assert.Equal(expected, KvCache.ByteCount(Large, tokens));
        Assert.Equal(expected / 80, KvCache.ByteCountOfLayer(Large, tokens));
    }

    // A layer of 3 million tokens has more floats than an array can: 12 GB of addresses, of which a few pages are written.
    [Fact]
    public void StridesAndStorageGoBeyondThirtyTwoBits()
    {
        KvCache cache = new(Large, 3_000_000, 79, 1);
        Assert.Equal(3_000_000L * 128, cache.KeyStride);
        KvCache.Layer layer = cache.Open(79);
        long last = (8 * cache.KeyStride) - 1;
        Assert.True(last > int.MaxValue);
        foreach (long place in new[] { 0, last })
        {
            layer.Keys[place] = 1.5f;
            layer.Values[place] = 2.5f;
            Assert.Equal((1.5f, 2.5f), (layer.Keys[place], layer.Values[place]));
        }

        Assert.Equal(0UL, (ulong)layer.Keys % 64);
        GC.KeepAlive(cache);
    }

    [Fact]
    public void MovesToOtherLayersInTheSameStorage()
    {
        KvCache cache = new(Large with { NumHiddenLayers = 3 }, 40, 0, 1) { Length = 7 };
        float* keys = cache.Open(0).Keys;
        Assert.Throws<IndexOutOfRangeException>(() => cache.Open(1));
        cache.MoveTo(2);
        Assert.Equal((2, 0), (cache.FirstLayer, cache.Length));
        Assert.True(keys == cache.Open(2).Keys);
    }
}
