using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

/// <summary>The forward pass straight from its formulas: double precision, one token after another, no cache.</summary>
internal sealed class ReferenceForward(Qwen2Config config, ITensorSource source)
{
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
            for (int t = 0; t < x.Length; t++)
            {
                double[] a = Add(x[t], Linear(p + "self_attn.o_proj", attended[t]));
                double[] n = Norm(a, p + "post_attention_layernorm.weight");
                x[t] = Add(a, config.IsSparse(layer) ? Mixture(p + "mlp.", n) : Mlp(p + "mlp.", n));
            }
        }

        string output = config.TieWordEmbeddings ? "model.embed_tokens" : "lm_head";
        return [.. x.Select(row => Linear(output, Norm(row, "model.norm.weight")))];
    }

    private double[][] Attend(string p, double[][] x, int window)
    {
        int d = config.HeadDim, group = config.NumAttentionHeads / config.NumKeyValueHeads;
        double[][] q = [.. x.Select((row, t) => Rotate(Linear(p + "q_proj", row), t))];
        double[][] k = [.. x.Select((row, t) => Rotate(Linear(p + "k_proj", row), t))];
        double[][] v = [.. x.Select(row => Linear(p + "v_proj", row))];
        double[][] result = [.. x.Select(_ => new double[config.QueryWidth])];
        for (int t = 0; t < x.Length; t++)
        {
            for (int head = 0; head < config.NumAttentionHeads; head++)
            {
                int keyHead = head / group, first = Math.Max(0, t - (long)window + 1 > 0 ? t - window + 1 : 0);
                double[] s = [.. Enumerable.Range(first, t - first + 1).Select(u => Enumerable.Range(0, d).Sum(i => q[t][(head * d) + i] * k[u][(keyHead * d) + i]) / Math.Sqrt(d))];
                double[] w = Softmax(s);
                for (int i = 0; i < d; i++) result[t][(head * d) + i] = w.Select((weight, u) => weight * v[first + u][(keyHead * d) + i]).Sum();
            }
        }

        return result;
    }

    private double[] Rotate(double[] heads, int position)
    {
        int d = config.HeadDim, half = d / 2;
        double[] result = new double[heads.Length];
        for (int start = 0; start < heads.Length; start += d)
        {
            for (int i = 0; i < half; i++)
            {
                (double sine, double cosine) = Math.SinCos(position * Math.Pow(config.RopeTheta, -2.0 * i / d));
                (double a, double b) = (heads[start + i], heads[start + i + half]);
                result[start + i] = (a * cosine) - (b * sine);
                result[start + i + half] = (b * cosine) + (a * sine);
            }
        }

        return result;
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
