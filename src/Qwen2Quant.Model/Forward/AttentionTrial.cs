using System.Diagnostics;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Model;

/// <summary>The attention of one layer by itself, on random queries, keys and values, for measurement.</summary>
public sealed unsafe class AttentionTrial
{
    private const int BatchTokens = 1024;

    private readonly Qwen2Config _config;
    private readonly Attention _attention;
    private readonly float[] _qkv;
    private readonly float[] _result;

    public AttentionTrial(Qwen2Config config, int threads)
    {
        _config = config;
        _attention = new Attention(config, new RopeTable(config), new WorkerTeam(threads));
        _qkv = new float[BatchTokens * (config.QueryWidth + (2 * config.KeyValueWidth))];
        _result = new float[BatchTokens * config.QueryWidth];
        Random random = new(1);
        for (int i = 0; i < _qkv.Length; i++) _qkv[i] = (random.NextSingle() * 2) - 1;
    }

    /// <summary>Operations of the products of a text whose tokens see all before them and themselves.</summary>
    public double Operations(int tokenCount) => tokenCount * (tokenCount + 1.0) / 2 * 4 * _config.QueryWidth;

    /// <summary>Bytes of the keys and values that one token sees.</summary>
    public double BytesSeen(int tokenCount) => 2.0 * sizeof(float) * _config.KeyValueWidth * tokenCount;

    /// <summary>Seconds for all tokens of a text, in batches as a model makes them.</summary>
    public double Prompt(int tokenCount)
    {
        KvCache cache = new(_config, tokenCount, 0, 1);
        long start = Stopwatch.GetTimestamp();
        Append(cache, 0, tokenCount, attend: true);
        return Stopwatch.GetElapsedTime(start).TotalSeconds;
    }

    /// <summary>Seconds a layer for one token behind so many, the least of three passes over layers that together exceed the processor's caches.</summary>
    public double Token(int cachedTokens, int layerCount)
    {
        const int Passes = 3;
        KvCache cache = new(_config, cachedTokens + 1, 0, layerCount);
        for (int layer = 0; layer < layerCount; layer++)
        {
            cache.Truncate(0);
            Append(cache, layer, cachedTokens, attend: false);
        }

        double least = double.PositiveInfinity;
        for (int pass = 0; pass < Passes; pass++)
        {
            long start = Stopwatch.GetTimestamp();
            for (int layer = 0; layer < layerCount; layer++)
            {
                Append(cache, layer, 1, attend: true);
                cache.Truncate(cachedTokens);
            }

            least = Math.Min(least, Stopwatch.GetElapsedTime(start).TotalSeconds / layerCount);
        }

        return least;
    }

    private void Append(KvCache cache, int layer, int tokenCount, bool attend)
    {
        cache.Reserve(tokenCount);
        fixed (float* qkv = _qkv, result = _result)
        {
            for (int first = 0; first < tokenCount; first += BatchTokens)
            {
                int count = Math.Min(BatchTokens, tokenCount - first);
                _attention.Append(layer, cache, qkv, [], count);
                if (attend) _attention.Attend(layer, cache, qkv, cache.Length, count, null, result);
                cache.Length += count;
            }
        }
    }
}
