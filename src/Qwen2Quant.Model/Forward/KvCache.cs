using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Model;

/// <summary>
/// Keys and values of one sequence, laid out as panels of <see cref="MatrixProduct"/>: keys with positions as channels, values with the head's values
/// as channels. It holds all layers or a range of them; a layer takes memory when it is first used, page by page as tokens come.
/// Used by one thread at a time.
/// </summary>
public sealed unsafe class KvCache
{
    private readonly Layer?[] _layers;
    private readonly long _keyCount;
    private readonly long _valueCount;

    /// <param name="layerCount">Layers held at a time: <paramref name="firstLayer"/> and those after it.</param>
    internal KvCache(Qwen2Config config, int capacity, int firstLayer, int layerCount)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(capacity, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(layerCount, 1);
        Capacity = capacity;
        FirstLayer = firstLayer;
        long paddedCapacity = RoundUp(capacity);
        KeyStride = checked(paddedCapacity * config.HeadDim);
        ValuePanelStride = paddedCapacity * MatrixProduct.PanelWidth;
        ValueStride = checked(ValuePanelStride * (RoundUp(config.HeadDim) / MatrixProduct.PanelWidth));
        _keyCount = checked(config.NumKeyValueHeads * KeyStride);
        _valueCount = checked(config.NumKeyValueHeads * ValueStride);
        _layers = new Layer?[layerCount];
    }

    /// <summary>Tokens that it can hold.</summary>
    public int Capacity { get; }

    /// <summary>Tokens that it holds.</summary>
    public int Length { get; internal set; }

    /// <summary>The first of the layers that it holds.</summary>
    public int FirstLayer { get; private set; }

    /// <summary>Tokens that it will hold after the call in progress.</summary>
    internal int TextLength { get; private set; }

    internal ForwardScratch Scratch { get; } = new();

    /// <summary>Floats from one head's keys to the next one's.</summary>
    internal long KeyStride { get; }

    /// <summary>Floats from one head's values to the next one's.</summary>
    internal long ValueStride { get; }

    /// <summary>Floats between panels of 32 values.</summary>
    internal long ValuePanelStride { get; }

    /// <summary>Bytes that a cache of all layers takes when it is full.</summary>
    public static long ByteCount(Qwen2Config config, int capacity) => checked(config.NumHiddenLayers * ByteCountOfLayer(config, capacity));

    /// <summary>Bytes of one layer of a full cache.</summary>
    public static long ByteCountOfLayer(Qwen2Config config, int capacity) =>
        checked(sizeof(float) * config.NumKeyValueHeads * RoundUp(capacity) * (config.HeadDim + RoundUp(config.HeadDim)));

    /// <summary>Forgets all tokens from <paramref name="length"/> on.</summary>
    public void Truncate(int length)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)length, (uint)Length, nameof(length));
        Length = length;
    }

    /// <summary>Forgets all tokens and goes over to other layers, in the memory of those held so far: for passes that go layer by layer.</summary>
    public void MoveTo(int firstLayer)
    {
        FirstLayer = firstLayer;
        Length = 0;
    }

    /// <summary>The storage of a layer, made on first use.</summary>
    internal Layer Open(int layer) => _layers[layer - FirstLayer] ??= new Layer(_keyCount, _valueCount);

    /// <summary>Announces a call that appends so many tokens, in one batch or in several.</summary>
    internal void Reserve(int tokenCount)
    {
        if (tokenCount > Capacity - Length)
        {
            throw new QuantException(ErrorKind.Resource, "the text is longer than the cache made for it")
            {
                Found = $"{(long)Length + tokenCount} tokens", Expected = $"at most {Capacity}",
            };
        }

        TextLength = Length + tokenCount;
    }

    private static long RoundUp(long count) => (count + MatrixProduct.PanelWidth - 1) / MatrixProduct.PanelWidth * MatrixProduct.PanelWidth;

    internal sealed class Layer
    {
        private readonly NativeFloats _keys = new();
        private readonly NativeFloats _values = new();

        public Layer(long keyCount, long valueCount)
        {
            // Here and not on use: many threads read these.
            Keys = _keys.Get(keyCount);
            Values = _values.Get(valueCount);
        }

        public float* Keys { get; }
        public float* Values { get; }
    }
}
