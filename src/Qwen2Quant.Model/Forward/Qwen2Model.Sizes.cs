namespace Qwen2Quant.Model;

/// <summary>What a model takes in memory, for <see cref="MemoryPlan"/>.</summary>
public sealed unsafe partial class Qwen2Model
{
    // What a thread reads and decodes weights into at their use.
    private const long SlabBytesPerThread = 16L << 20;

    /// <summary>Bytes of all matrices when they are resident.</summary>
    internal long WeightBytes => MultipliedMatrices.Sum(matrix => matrix.ResidentBytes);

    internal long LargestLayerBytes => _layers.Max(layer => layer.Matrices.Sum(matrix => matrix.ResidentBytes));

    internal int BatchTokens => _batchTokens;

    internal long OutputBytes => _output.ResidentBytes;

    internal long LogitRowBytes => (long)Config.VocabSize * sizeof(float);

    /// <summary>Bytes of the slabs that threads decode weights into.</summary>
    internal long SlabBytes => _team.ThreadCount * SlabBytesPerThread;

    /// <summary>Bytes of hidden states.</summary>
    internal long StateBytes(long tokenCount) => tokenCount * Config.HiddenSize * sizeof(float);

    /// <summary>Bytes of the buffers that a batch of tokens goes through, see <see cref="ForwardScratch.Slot"/>, and of the widest of them as a product's packed operand.</summary>
    internal long ActivationBytes(int tokenCount)
    {
        long values = (2L * Config.HiddenSize) + Config.QueryWidth + (2 * Config.KeyValueWidth) + Config.QueryWidth;
        int width = _layers.Max(layer => layer.Dense is { } dense ? dense.Width : Math.Max(layer.Sparse!.Shared.Width, Config.MoeIntermediateSize));
        values += 4L * Math.Max(width, Config.HiddenSize);
        if (_layers.Any(layer => layer.Sparse is not null)) values += Config.NumExperts + 1 + (2L * Config.HiddenSize);
        return checked(values * tokenCount * sizeof(float));
    }
}
