using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

/// <summary>
/// The forward pass straight from its formulas: double precision, one token after another, no cache, positions remapped pair by pair.
/// </summary>
internal sealed class ReferenceForward(Qwen2Config config, ITensorSource source)
{
    /// <summary>Tokens before it are keys and values only: for the last logits of a long text through one layer.</summary>
    public int FirstQuery { get; init; }

    private readonly Dictionary<string, double[]> _weights = source.Tensors.ToDictionary(
        entry => entry.Name, entry => Array.ConvertAll(source.ReadAll(entry), value => (double)value));

    /// <summary>By matrix (without <c>.weight</c>) the sum of squares of each input channel, and the rows summed.</summary>
    public Dictionary<string, (double[] Squares, int Rows)> Inputs { get; } = [];

    /// <summary>Logits of every token.</summary>
    public double[][] Logits(int[] tokens)
    {
        int hidden = config.HiddenSize;
        double[][] x = [.. tokens.Select(token => _weights["model.embed_tokens.weight"][(token * hidden)..((token + 1) * hidden)])];
        for (int layer = 0; layer < config.NumHiddenLayers; layer++)
        {
            string p = $"model.layers.{layer}.";
            double[][] normalized = [.. x.Select(row => Norm(row, p + "input_layernorm.weight"))];
            double[][] attended = Attend(p + "self_attn.", normalized, config.WindowOf(layer) ?? int.MaxValue);
            for (int t = FirstQuery; t < x.Length; t++)
            {
                double[] a = Add(x[t], Linear(p + "self_attn.o_proj", attended[t]));
                double[] n = Norm(a, p + "post_attention_layernorm.weight");
                x[t] = Add(a, config.IsSparse(layer) ? Mixture(p + "mlp.", n) : Mlp(p + "mlp.", n));
            }
        }

        string output = config.TieWordEmbeddings ? "model.embed_tokens" : "lm_head";
        return [.. x.Select((row, t) => t < FirstQuery ? [] : Linear(output, Norm(row, "model.norm.weight")))];
    }

    private double[][] Attend(string p, double[][] x, int window)
    {
        int d = config.HeadDim, group = config.NumAttentionHeads / config.NumKeyValueHeads;
        double[] frequencies = Frequencies(x.Length, out double attention);
        double[][] q = [.. x.Select((row, t) => t < FirstQuery ? [] : Linear(p + "q_proj", row))];
        double[][] k = [.. x.Select(row => Linear(p + "k_proj", row))];
        double[][] v = [.. x.Select(row => Linear(p + "v_proj", row))];
        double[][] result = [.. x.Select(_ => new double[config.QueryWidth])];
        for (int t = FirstQuery; t < x.Length; t++)
        {
            for (int head = 0; head < config.NumAttentionHeads; head++)
            {
                int keyHead = head / group, first = Math.Max(0, t - (long)window + 1 > 0 ? t - window + 1 : 0);
                double[] s = [.. Enumerable.Range(first, t - first + 1).Select(u => Score(t, u, q[t].AsSpan(head * d, d), k[u].AsSpan(keyHead * d, d)) / Math.Sqrt(d))];
                double[] w = Softmax(s);
                for (int i = 0; i < d; i++) result[t][(head * d) + i] = w.Select((weight, u) => weight * v[first + u][(keyHead * d) + i]).Sum();
            }
        }

        return result;

        // (R(m) q)^T (R(n) k) = sum over pairs of Re(q conj(k) e^(i (m - n) f)): only the distance counts.
        double Score(int query, int key, ReadOnlySpan<double> a, ReadOnlySpan<double> b)
        {
            double distance = Distance(query, key), sum = 0;
            for (int i = 0; i < d / 2; i++)
            {
                (double sine, double cosine) = Math.SinCos(distance * frequencies[i]);
                sum += (((a[i] * b[i]) + (a[i + (d / 2)] * b[i + (d / 2)])) * cosine) + (((a[i] * b[i + (d / 2)]) - (a[i + (d / 2)] * b[i])) * sine);
            }

            return sum * attention * attention * Temperature(query + 1);
        }
    }

    // Between positions as dual chunk attention maps them, in its three cases.
    private double Distance(int query, int key)
    {
        if (config.DualChunkAttention is not { } chunks) return query - key;
        int s = chunks.ChunkSize - chunks.LocalSize;
        int queryChunk = query / s, keyChunk = key / s, keyPlace = key - (keyChunk * s), queryPlace = query - (queryChunk * s);
        if (queryChunk == keyChunk) return query - key;
        return queryChunk == keyChunk + 1 ? Math.Min(queryPlace + s, chunks.ChunkSize) - keyPlace : Math.Min((2 * s) - 1, chunks.ChunkSize) - keyPlace;
    }

    private double Temperature(int length) => config.DualChunkAttention?.OriginalMaxPositionEmbeddings is { } original
        ? Math.Pow(Math.Max(1, 1 + (0.1 * Math.Log((double)length / original))), 2)
        : 1;

    // By the formulas of Transformers' modeling_rope_utils for each type; the attention factor is on queries and on keys.
    private double[] Frequencies(int length, out double attention)
    {
        int d = config.HeadDim;
        double theta = config.RopeTheta;
        attention = 1;
        if (config.RopeScaling is not { } scaling) return Plain(theta);
        double factor = scaling.Factor;
        switch (scaling.Type)
        {
            case RopeScalingType.Linear: return Array.ConvertAll(Plain(theta), f => f / factor);
            case RopeScalingType.Dynamic:
                double seen = Math.Max(length, config.MaxPositionEmbeddings);
                return Plain(theta * Math.Pow((factor * seen / config.MaxPositionEmbeddings) - (factor - 1), d / (d - 2.0)));
            default:
                attention = scaling.AttentionFactor ?? (1 + (0.1 * Math.Log(factor)));
                double original = scaling.OriginalMaxPositionEmbeddings ?? config.MaxPositionEmbeddings;
                double low = Math.Max(Math.Floor(Turns(scaling.BetaFast)), 0), high = Math.Min(Math.Ceiling(Turns(scaling.BetaSlow)), d - 1);
                return [.. Plain(theta).Select((f, i) => (1 - Math.Clamp((i - low) / (high - low), 0, 1)) is var kept ? (f / factor * (1 - kept)) + (f * kept) : 0)];

                double Turns(double rotations) => d * Math.Log(original / (rotations * 2 * Math.PI)) / (2 * Math.Log(theta));
        }

        double[] Plain(double theta) => [.. Enumerable.Range(0, d / 2).Select(i => 1 / Math.Pow(theta, 2.0 * i / d))];
    }

    private double[] Mlp(string p, double[] x)
    {
        double[] up = Linear(p + "up_proj", x);
        return Linear(p + "down_proj", [.. Linear(p + "gate_proj", x).Select((g, i) => g / (1 + Math.Exp(-g)) * up[i])]);
    }

    private double[] Mixture(string p, double[] x)
    {
        double[] probabilities = Softmax(Linear(p + "gate", x));
        int[] best = [.. Enumerable.Range(0, probabilities.Length).OrderByDescending(e => probabilities[e]).Take(config.NumExpertsPerTok)];
        double total = config.NormTopkProb ? best.Sum(e => probabilities[e]) : 1;
        double shared = 1 / (1 + Math.Exp(-Linear(p + "shared_expert_gate", x)[0]));
        double[] sum = [.. Mlp(p + "shared_expert.", x).Select(value => value * shared)];
        foreach (int expert in best) sum = Add(sum, [.. Mlp($"{p}experts.{expert}.", x).Select(value => value * probabilities[expert] / total)]);
        return sum;
    }

    private double[] Norm(double[] x, string weight)
    {
        double scale = 1 / Math.Sqrt((x.Sum(value => value * value) / x.Length) + config.RmsNormEps);
        return [.. x.Select((value, i) => value * scale * _weights[weight][i])];
    }

    private double[] Linear(string name, double[] x)
    {
        double[] weight = _weights[name + ".weight"];
        double[]? bias = _weights.GetValueOrDefault(name + ".bias");
        double[] y = new double[weight.Length / x.Length];
        (double[] squares, int rows) = Inputs.GetValueOrDefault(name, (new double[x.Length], 0));
        Inputs[name] = (Add(squares, [.. x.Select(value => value * value)]), rows + 1);
        for (int row = 0; row < y.Length; row++)
        {
            y[row] = bias?[row] ?? 0;
            for (int i = 0; i < x.Length; i++) y[row] += weight[(row * x.Length) + i] * x[i];
        }

        return y;
    }

    private static double[] Softmax(double[] scores)
    {
        double maximum = scores.Max();
        double[] exps = [.. scores.Select(score => Math.Exp(score - maximum))];
        double sum = exps.Sum();
        return [.. exps.Select(value => value / sum)];
    }

    private static double[] Add(double[] a, double[] b) => [.. a.Select((value, i) => value + b[i])];
}
