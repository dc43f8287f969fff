using BenchmarkDotNet.Running;
using Qwen2Quant.Benchmarks;

BenchmarkSwitcher.FromTypes([typeof(BlockEncoding), typeof(BlockDecoding)]).Run(args);
