using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Model;

/// <summary>
/// Keys and values of one sequence, laid out as panels of <see cref="MatrixProduct"/>: keys with positions as channels, values with the head's values as channels.
/// Used by one thread at a time.
/// </summary>
public sealed unsafe class KvCache
{
    private readonly Layer[] _layers;

    /// <param name="layerCount">Layers that it is for; all of them unless given.</param>
    internal KvCache(Qwen2Config config, int capacity, int? layerCount = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(capacity, 1);
        Capacity = capacity;
        long paddedCapacity = RoundUp(capacity);
        KeyStride = paddedCapacity * config.HeadDim;
        ValuePanelStride = paddedCapacity * MatrixProduct.PanelWidth;
        ValueStride = ValuePanelStride * (RoundUp(config.HeadDim) / MatrixProduct.PanelWidth);
        _layers = new Layer[layerCount ?? config.NumHiddenLayers];
        for (int layer = 0; layer < _layers.Length; layer++) _layers[layer] = new Layer(config.NumKeyValueHeads * KeyStride, config.NumKeyValueHeads * ValueStride);
    }

    /// <summary>Tokens that it can hold.</summary>
    public int Capacity { get; }

    /// <summary>Tokens that it holds.</summary>
    public int Length { get; internal set; }

    internal ForwardScratch Scratch { get; } = new();

    /// <summary>Floats from one head's keys to the next one's.</summary>
    internal long KeyStride { get; }

    /// <summary>Floats from one head's values to the next one's.</summary>
    internal long ValueStride { get; }

    /// <summary>Floats between panels of 32 values.</summary>
    internal long ValuePanelStride { get; }

    /// <summary>Bytes that a cache takes.</summary>
    public static long ByteCount(Qwen2Config config, int capacity, int? layerCount = null) =>
        checked(sizeof(float) * (layerCount ?? config.NumHiddenLayers) * config.NumKeyValueHeads * RoundUp(capacity) * (config.HeadDim + RoundUp(config.HeadDim)));

    /// <summary>Forgets all tokens from <paramref name="length"/> on.</summary>
    public void Truncate(int length)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)length, (uint)Length, nameof(length));
        Length = length;
    }

    internal float* Keys(int layer) => _layers[layer].Keys;

    internal float* Values(int layer) => _layers[layer].Values;

    internal void RequireRoom(int tokenCount)
    {
        if (tokenCount <= Capacity - Length) return;
        throw new QuantException(ErrorKind.Resource, "the text is longer than the cache made for it")
        {
            Found = $"{(long)Length + tokenCount} tokens", Expected = $"at most {Capacity}",
        };
    }

    private static long RoundUp(long count) => (count + MatrixProduct.PanelWidth - 1) / MatrixProduct.PanelWidth * MatrixProduct.PanelWidth;

    private sealed class Layer
    {
        private readonly float[] _keys;
        private readonly float[] _values;

        public Layer(long keyCount, long valueCount)
        {
            _keys = MatrixProductPanels.AllocateAligned(keyCount, out float* keys);
            _values = MatrixProductPanels.AllocateAligned(valueCount, out float* values);
            Keys = keys;
            Values = values;
        }

        public float* Keys { get; }
        public float* Values { get; }
    }
}
