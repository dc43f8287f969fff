using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

internal static class Tune
{
    public static double[] P { get; } = [.. (Environment.GetEnvironmentVariable("TUNE") ?? "8,0.5,1,2,1,2,1,1,1,1,1").Split(',').Select(double.Parse)];
}

internal readonly partial struct AffineBlock<TFormat>
{
    private static void EncodeSearched<T>(ReadOnlySpan<float> values, bool hasImportance, Span<float> lanes, Span<float> weights, Effort effort, ref byte blocks)
        where T : unmanaged, ILanes<T>
    {
        int length = TFormat.SubLength;
        int blockCount = values.Length / 256;
        if (!hasImportance) weights.Fill(1);
        Span<float> startSteps = stackalloc float[Search.Stride];
        Span<float> startOffsets = stackalloc float[Search.Stride];
        Span<float> means = stackalloc float[Search.Stride];
        Span<float> sums = stackalloc float[Search.Stride];
        Span<float> xs = stackalloc float[Search.Stride];
        for (int g = 0; g < Search.Stride; g += T.Width)
        {
            AffineSearch.Totals<T> totals = AffineSearch.Sum<T>(in lanes[g], in weights[g], length);
            (T step, T offset) = AffineSearch.Start(in lanes[g], in weights[g], length, TFormat.CodeLimit, false, in totals, TFormat.CodeLimit + (float)Tune.P[1], (float)Tune.P[2], (int)Tune.P[0], (int)Tune.P[3]);
            T.Store(step, ref startSteps[g]);
            T.Store(offset, ref startOffsets[g]);
            T.Store(totals.Weight, ref sums[g]);
            T.Store(totals.Value, ref xs[g]);
            T.Store(totals.Value / totals.Weight, ref means[g]);
        }

        Span<float> bestParameters = stackalloc float[BatchBlocks * (2 + (2 * SubBlocks))];
        Span<float> scaleUnits = stackalloc float[Search.Stride];
        Span<float> minimumUnits = stackalloc float[Search.Stride];
        Span<float> scales = stackalloc float[Search.Stride];
        Span<float> minima = stackalloc float[Search.Stride];
        Span<float> meanCodes = stackalloc float[Search.Stride];
        Span<float> errors = stackalloc float[Search.Stride];
        Span<float> bestErrors = stackalloc float[BatchBlocks];
        Span<float> m1 = stackalloc float[Search.Stride];
        Span<float> m2 = stackalloc float[Search.Stride];
        Span<float> m3 = stackalloc float[Search.Stride];
        bestErrors.Fill(float.PositiveInfinity);
        int units = (int)Tune.P[8];
        for (int u = 0; u < units; u++)
        {
            float factor = 1 + ((float)Tune.P[9] * (u - ((units - 1) / 2)));
            for (int b = 0; b < BatchBlocks; b++)
            {
                int first = b * SubBlocks;
                float step = 0, offset = 0;
                for (int k = 0; k < SubBlocks; k++)
                {
                    step = MathF.Max(step, startSteps[first + k]);
                    offset = MathF.Max(offset, startOffsets[first + k]);
                }

                scaleUnits.Slice(first, SubBlocks).Fill(ToHalf(step * factor / TFormat.ScaleLimit));
                minimumUnits.Slice(first, SubBlocks).Fill(ToHalf(offset * factor / TFormat.ScaleLimit));
            }

            for (int g = 0; g < Search.Stride; g += T.Width)
            {
                T scaleUnit = Block32.At<T>(ref scaleUnits[0], g), minimumUnit = Block32.At<T>(ref minimumUnits[0], g);
                T step = Block32.At<T>(ref startSteps[0], g);
                T.Store(AffineSearch.Round(step * LaneMath.FiniteInverse(scaleUnit), TFormat.ScaleLimit), ref scales[g]);
                T.Store(AffineSearch.Round(Block32.At<T>(ref startOffsets[0], g) * LaneMath.FiniteInverse(minimumUnit), TFormat.ScaleLimit), ref minima[g]);
            }

            int refits = (int)Tune.P[10];
            for (int r = 0; r <= refits; r++)
            {
                for (int g = 0; g < Search.Stride; g += T.Width)
                {
                    T scaleUnit = Block32.At<T>(ref scaleUnits[0], g), minimumUnit = Block32.At<T>(ref minimumUnits[0], g);
                    T scale = Block32.At<T>(ref scales[0], g), minimum = Block32.At<T>(ref minima[0], g);
                    AffineSearch.Moments<T> m = AffineSearch.Measure(in lanes[g], in weights[g], length, TFormat.CodeLimit, scaleUnit * scale, minimumUnit * minimum);
                    T meanCode = m.Code / Block32.At<T>(ref sums[0], g);
                    bool wide = r == 0;
                    AffineSearch.Lattice(in lanes[g], in weights[g], length, TFormat.CodeLimit, TFormat.ScaleLimit, scaleUnit, minimumUnit, meanCode, Block32.At<T>(ref means[0], g),
                        (int)(wide ? Tune.P[4] : Tune.P[11]), (int)(wide ? Tune.P[5] : 1), (int)(wide ? Tune.P[6] : Tune.P[12]), (int)(wide ? Tune.P[7] : 1), ref scale, ref minimum, out T error);
                    T.Store(scale, ref scales[g]);
                    T.Store(minimum, ref minima[g]);
                    T.Store(error, ref errors[g]);
                    if (r < refits)
                    {
                        m = AffineSearch.Measure(in lanes[g], in weights[g], length, TFormat.CodeLimit, scaleUnit * scale, minimumUnit * minimum);
                        T.Store(m.Code, ref m1[g]);
                        T.Store(m.Code2, ref m2[g]);
                        T.Store(m.CodeValue, ref m3[g]);
                    }
                }

                for (int b = 0; b < BatchBlocks; b++)
                {
                    int first = b * SubBlocks;
                    float error = 0;
                    for (int k = 0; k < SubBlocks; k++) error += errors[first + k];
                    if (error < bestErrors[b] || (r == 0 && u == 0))
                    {
                        bestErrors[b] = error;
                        Span<float> parameters = bestParameters.Slice(b * (2 + (2 * SubBlocks)), 2 + (2 * SubBlocks));
                        parameters[0] = scaleUnits[first];
                        parameters[1] = minimumUnits[first];
                        scales.Slice(first, SubBlocks).CopyTo(parameters[2..]);
                        minima.Slice(first, SubBlocks).CopyTo(parameters[(2 + SubBlocks)..]);
                    }

                    if (r < refits)
                    {
                        double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
                        for (int k = first; k < first + SubBlocks; k++)
                        {
                            double a = scales[k], n = minima[k];
                            aa += a * a * m2[k];
                            ab += a * n * m1[k];
                            bb += n * n * sums[k];
                            ax += a * m3[k];
                            bx += n * xs[k];
                        }

                        double det = (aa * bb) - (ab * ab);
                        if (det > 1e-9 * aa * bb)
                        {
                            scaleUnits.Slice(first, SubBlocks).Fill(ToHalf((float)(((ax * bb) - (ab * bx)) / det)));
                            minimumUnits.Slice(first, SubBlocks).Fill(ToHalf((float)(((ab * ax) - (aa * bx)) / det)));
                        }
                        else if (aa > 0)
                        {
                            scaleUnits.Slice(first, SubBlocks).Fill(ToHalf((float)(ax / aa)));
                        }
                    }
                }
            }
        }

        Span<byte> codes = stackalloc byte[256];
        for (int b = 0; b < blockCount; b++)
        {
            ReadOnlySpan<float> parameters = bestParameters.Slice(b * (2 + (2 * SubBlocks)), 2 + (2 * SubBlocks));
            for (int k = 0; k < SubBlocks; k++)
            {
                ref float from = ref Unsafe.Add(ref MemoryMarshal.GetReference(values), (b * 256) + (k * length));
                StoreCodes<T>(in from, parameters[0] * parameters[2 + k], parameters[1] * parameters[2 + SubBlocks + k], ref codes[k * length]);
            }

            ref byte block = ref Unsafe.Add(ref blocks, b * BlockBytes);
            PackParameters(parameters, MemoryMarshal.CreateSpan(ref block, BlockBytes));
            TFormat.PackCodes<T>(in codes[0], ref block);
        }
    }

    private static float ToHalf(float value) => (float)(Half)MathF.Min(MathF.Max(value, 0), 65504);
}
