using System.Numerics;
using System.Text;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Benchmarks.RandomModels;

/// <summary>
/// Rows of Gaussian BF16 values that depend on a seed, the tensor's name and the row alone, so that any number of threads and any container
/// gives the same model. Values are picked from a table of 65,536 draws: billions of weights then take minutes.
/// </summary>
public sealed class GaussianRows
{
    private const int TableLength = 1 << 16;

    private readonly ulong _seed;
    private readonly ushort[] _table;

    /// <param name="table">Of <see cref="CreateTable"/>.</param>
    public GaussianRows(ulong seed, string tensorName, ushort[] table)
    {
        // FNV-1a: string.GetHashCode differs from one process to the next.
        ulong hash = 14695981039346656037;
        foreach (byte b in Encoding.UTF8.GetBytes(tensorName)) hash = (hash ^ b) * 1099511628211;
        _seed = seed ^ hash;
        _table = table;
    }

    /// <summary>Draws as BF16 bit patterns.</summary>
    public static ushort[] CreateTable(ulong seed, float mean, float standardDeviation)
    {
        ushort[] table = new ushort[TableLength];
        ulong state = seed;
        for (int i = 0; i < TableLength; i += 2)
        {
            // Box and Muller's transform: two draws of one pair.
            double radius = Math.Sqrt(-2 * Math.Log(1 - Unit(Mix(ref state)))), angle = 2 * Math.PI * Unit(Mix(ref state));
            table[i] = BFloat16Rows.Narrow((float)(mean + (standardDeviation * radius * Math.Cos(angle))));
            table[i + 1] = BFloat16Rows.Narrow((float)(mean + (standardDeviation * radius * Math.Sin(angle))));
        }

        return table;
    }

    /// <summary>Fills one row with BF16 bit patterns.</summary>
    public void Fill(long row, Span<ushort> values)
    {
        ulong seed = _seed ^ ((ulong)row * 0xd1342543de82ef95);
        ulong s0 = Mix(ref seed), s1 = Mix(ref seed), s2 = Mix(ref seed), s3 = Mix(ref seed);
        for (int i = 0; i < values.Length;)
        {
            // xoshiro256+, Blackman and Vigna; sixteen bits at a time from the top.
            ulong bits = s0 + s3;
            ulong shifted = s1 << 17;
            s2 ^= s0;
            s3 ^= s1;
            s1 ^= s2;
            s0 ^= s3;
            s2 ^= shifted;
            s3 = BitOperations.RotateLeft(s3, 45);
            for (int part = 0; part < 4 && i < values.Length; part++, bits <<= 16) values[i++] = _table[(int)(bits >> 48)];
        }
    }

    private static double Unit(ulong bits) => (bits >> 11) * (1.0 / (1UL << 53));

    /// <summary>SplitMix64 (Steele, Lea and Flood).</summary>
    private static ulong Mix(ref ulong state)
    {
        ulong z = state += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }
}
