using System.Text;

namespace Qwen2Quant.Tests.Validation;

/// <summary>A second reader of llama-perplexity's base file, after the format's description alone: everything in memory, log-probabilities in double.</summary>
internal sealed class PlainLogitFile
{
    public PlainLogitFile(string path)
    {
        using BinaryReader reader = new(File.OpenRead(path));
        Assert.Equal("_logits_", Encoding.ASCII.GetString(reader.ReadBytes(8)));
        Context = reader.ReadInt32();
        Vocabulary = reader.ReadInt32();
        Chunks = reader.ReadInt32();
        Tokens = [.. Enumerable.Range(0, Chunks * Context).Select(_ => reader.ReadInt32())];
        int positions = Context - 1 - (Context / 2);
        LogProbabilities = new double[Chunks][][];
        Scales = new double[Chunks][];
        for (int chunk = 0; chunk < Chunks; chunk++)
        {
            LogProbabilities[chunk] = new double[positions][];
            Scales[chunk] = new double[positions];
            for (int i = 0; i < positions; i++)
            {
                float scale = reader.ReadSingle(), least = reader.ReadSingle();
                Scales[chunk][i] = scale;
                LogProbabilities[chunk][i] = [.. Enumerable.Range(0, Vocabulary).Select(_ => ((double)scale * reader.ReadUInt16()) + least)];
                if (Vocabulary % 2 == 1) reader.ReadUInt16();
            }
        }

        Assert.Equal(reader.BaseStream.Length, reader.BaseStream.Position);
    }

    public int Context { get; }

    public int Vocabulary { get; }

    public int Chunks { get; }

    public int[] Tokens { get; }

    /// <summary>[chunk][scored position][token].</summary>
    public double[][][] LogProbabilities { get; }

    public double[][] Scales { get; }

    /// <summary>llama-perplexity's divergence of a candidate's log-probabilities: over the tokens above -16.</summary>
    public static double Divergence(double[] p, double[] q) => p.Zip(q).Where(pair => pair.First > -16).Sum(pair => Math.Exp(pair.First) * (pair.First - pair.Second));
}
