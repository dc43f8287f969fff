using System.Text.Json;
using Qwen2Quant.EndToEnd.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.EndToEnd.Native;

/// <summary>The native program runs the same vector kernels as the compiled-at-run-time one at the same width, not their scalar fallbacks.</summary>
[Collection(NativeProgram.Collection)]
public sealed class NativeKernelTests(ITestOutputHelper print)
{
    [NativeFact]
    public void KernelsAreTheSame()
    {
        JsonElement aot = NativeProgram.Command("bench", "--only", "kernels", "--json").Run().Expect(0).Json();
        string width = aot.GetProperty("simd").GetString()!;
        print.WriteLine($"{width}: {string.Join(", ", Kernels(aot))}");
        Dictionary<string, string> sameWidth = new() { ["QWEN2QUANT_SIMD"] = width switch { "avx512" => "512", "avx2" => "256", "vector128" => "128", _ => "scalar" } };
        JsonElement jit = new CliCommand("bench", "--only", "kernels", "--json") { Environment = sameWidth }.Run().Expect(0).Json();
        Assert.Equal(width, jit.GetProperty("simd").GetString());
        Assert.NotEmpty(Kernels(jit));
        Assert.Equal(Kernels(jit), Kernels(aot));
        if (System.Runtime.Intrinsics.X86.Avx2.IsSupported) Assert.StartsWith("avx", width, StringComparison.Ordinal);
    }

    private static string[] Kernels(JsonElement result) => [.. result.GetProperty("kernels").EnumerateArray().Select(kernel => kernel.GetString()!)];
}
