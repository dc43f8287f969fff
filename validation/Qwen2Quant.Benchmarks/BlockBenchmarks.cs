using BenchmarkDotNet.Attributes;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;

namespace Qwen2Quant.Benchmarks;

/// <summary>One thread on 64 Ki cached values: BF16 to each type that is written, slab by slab as a conversion does.</summary>
public class BlockEncoding
{
    private const int ValueCount = 1 << 16;
    private const int SlabValues = 1 << 13;

    private readonly ushort[] _source = new ushort[ValueCount];
    private readonly float[] _slab = new float[SlabValues];
    private byte[] _blocks = [];
    private ElementType _type = PlainTypes.F32;

    [ParamsSource(nameof(TypeNames))]
    public string Type { get; set; } = "";

    [Params(Effort.Fast, Effort.Normal)]
    public Effort Effort { get; set; }

    public static IEnumerable<string> TypeNames => GgmlTypes.All.Where(type => type.Element.CanEncode).Select(type => type.Name);

    [GlobalSetup]
    public void Setup()
    {
        _type = GgmlTypes.Find(Type)!.Element;
        _blocks = new byte[_type.ByteCount(ValueCount)];
        Random random = new(1);
        for (int i = 0; i < ValueCount; i++) _source[i] = BFloat16Rows.Narrow((float)((random.NextDouble() + random.NextDouble() - 1) * 0.05));
    }

    [Benchmark]
    public void FromBFloat16()
    {
        int slabBytes = (int)_type.ByteCount(SlabValues);
        for (int slab = 0; slab < ValueCount / SlabValues; slab++)
        {
            BFloat16Rows.Widen(_source.AsSpan(slab * SlabValues, SlabValues), _slab);
            _type.EncodeRow(_slab, [], Effort, _blocks.AsSpan(slab * slabBytes, slabBytes));
        }
    }
}

/// <summary>One thread: blocks of each type to 64 Ki floats that stay in the cache.</summary>
public class BlockDecoding
{
    private const int ValueCount = 1 << 16;

    private readonly float[] _values = new float[ValueCount];
    private byte[] _blocks = [];
    private ElementType _type = PlainTypes.F32;

    [ParamsSource(nameof(TypeNames))]
    public string Type { get; set; } = "";

    public static IEnumerable<string> TypeNames => GgmlTypes.All.Where(type => type.Element.IsQuantized).Select(type => type.Name);

    [GlobalSetup]
    public void Setup()
    {
        _type = GgmlTypes.Find(Type)!.Element;
        _blocks = new byte[_type.ByteCount(ValueCount)];
        new Random(1).NextBytes(_blocks);
    }

    [Benchmark]
    public void ToFloats() => _type.Decode(_blocks, _values);
}
