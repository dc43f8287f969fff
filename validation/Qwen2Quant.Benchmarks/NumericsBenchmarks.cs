using BenchmarkDotNet.Attributes;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Benchmarks;

/// <summary>Conversions that every weight passes through, on one row of a 7B model's MLP.</summary>
public class NumericsBenchmarks
{
    private const int RowLength = 18944;

    private readonly float[] _values = new float[RowLength];
    private readonly ushort[] _halves = new ushort[RowLength];

    [GlobalSetup]
    public void Setup()
    {
        Random random = new(1);
        for (int i = 0; i < RowLength; i++) _values[i] = (float)(random.NextDouble() - 0.5);
        BFloat16Rows.Narrow(_values, _halves);
    }

    [Benchmark]
    public void WidenBFloat16() => BFloat16Rows.Widen(_halves, _values);

    [Benchmark]
    public void NarrowBFloat16() => BFloat16Rows.Narrow(_values, _halves);

    [Benchmark]
    public void WidenHalf() => HalfRows.Widen(_halves, _values);

    [Benchmark]
    public void NarrowHalf() => HalfRows.Narrow(_values, _halves);
}
