namespace Qwen2Quant.Model;

/// <summary>
/// The positions at which queries and keys are turned. One query may see ranges of keys from different positions, one range for each
/// <i>kind</i>; kinds follow each other in the order of their keys. Without dual chunks there is one kind, all keys up to the query.
/// </summary>
internal sealed class PositionScheme(DualChunkAttention? chunks)
{
    private const int Inter = 0, Successive = 1, Intra = 2;

    public int KindCount { get; } = chunks is null ? 1 : 3;

    public int KeyPosition(int token) => chunks is null ? token : token % chunks.Stride;

    public int QueryPosition(int kind, int token)
    {
        if (chunks is null) return token;
        int place = token % chunks.Stride;
        return kind switch
        {
            Intra => place,
            Successive => (int)Math.Min((long)place + chunks.Stride, chunks.ChunkSize),
            _ => (int)Math.Min((2L * chunks.Stride) - 1, chunks.ChunkSize),
        };
    }

    /// <summary>The keys from <c>Low</c> to below <c>High</c> that a query sees from its position of one kind, without regard to windows.</summary>
    public (int Low, int High) Keys(int kind, int token)
    {
        if (chunks is null) return (0, token + 1);
        int own = token / chunks.Stride * chunks.Stride;
        int before = Math.Max(own - chunks.Stride, 0);
        return kind switch
        {
            Intra => (own, token + 1),
            Successive => (before, own),
            _ => (0, before),
        };
    }

    /// <summary>Factor on the scores of a query.</summary>
    public double ScoreFactor(int token)
    {
        if (chunks?.OriginalMaxPositionEmbeddings is not { } original || token < original) return 1;
        double factor = (0.1 * Math.Log((token + 1.0) / original)) + 1;
        return factor * factor;
    }
}
