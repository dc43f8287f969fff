using System.Runtime.Intrinsics.X86;

namespace Qwen2Quant.Core.Numerics;

/// <summary>Width of the vector kernels, in order: a kernel takes the widest that it has at or below the chosen level.</summary>
public enum SimdLevel
{
    Scalar = 0,

    /// <summary>Portable 128-bit vectors (Arm, and x86-64 without AVX2).</summary>
    Vector128 = 128,

    /// <summary>AVX2 with FMA.</summary>
    Avx2 = 256,

    /// <summary>AVX-512 F, BW, DQ and VL.</summary>
    Avx512 = 512,
}

/// <summary>The vector width this process uses, chosen once: the machine's best, or <c>QWEN2QUANT_SIMD=scalar|128|256|512</c> when that is lower.</summary>
public static class Simd
{
    public static SimdLevel Best { get; } = FindBest();

    public static SimdLevel Level { get; } = Choose(Environment.GetEnvironmentVariable("QWEN2QUANT_SIMD"));

    /// <summary>All levels that this machine can run, lowest first; tests compare each with the scalar form.</summary>
    public static IReadOnlyList<SimdLevel> Available { get; } = [.. Enum.GetValues<SimdLevel>().Where(level => level <= Best)];

    private static SimdLevel FindBest()
    {
        // Vector512.IsHardwareAccelerated is false on machines whose AVX-512 lowers the clock; the instructions are there all the same.
        if (Avx512F.IsSupported && Avx512BW.IsSupported && Avx512DQ.IsSupported && Avx512F.VL.IsSupported) return SimdLevel.Avx512;
        if (Avx2.IsSupported && Fma.IsSupported) return SimdLevel.Avx2;
        return System.Runtime.Intrinsics.Vector128.IsHardwareAccelerated ? SimdLevel.Vector128 : SimdLevel.Scalar;
    }

    private static SimdLevel Choose(string? wanted)
    {
        SimdLevel level = wanted switch
        {
            "scalar" => SimdLevel.Scalar,
            "128" => SimdLevel.Vector128,
            "256" => SimdLevel.Avx2,
            _ => SimdLevel.Avx512,
        };
        return level < Best ? level : Best;
    }
}
