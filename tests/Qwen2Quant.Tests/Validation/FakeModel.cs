using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Validation;

/// <summary>A small model whose logits depend on all tokens read so far; rows are computed one by one, so chunks cannot change them.</summary>
internal sealed class FakeModel : ILogitModel
{
    private readonly float[] _head;
    private readonly float[] _embedding;

    public FakeModel(int vocabularySize, int hiddenSize, int seed, float noise = 0, float scale = 1.5f)
    {
        VocabularySize = vocabularySize;
        HiddenSize = hiddenSize;
        Random random = new(seed);
        _head = [.. Enumerable.Range(0, vocabularySize * hiddenSize).Select(_ => scale * Normal(random))];
        _embedding = [.. Enumerable.Range(0, vocabularySize * hiddenSize).Select(_ => Normal(random))];
        Random perturbation = new(seed + 1);
        for (int i = 0; i < _head.Length; i++) _head[i] += noise * Normal(perturbation);
    }

    public int VocabularySize { get; }

    public int HiddenSize { get; }

    /// <summary>Changes one logit: given the number of the forward pass, the position and the token.</summary>
    public Func<int, int, int, float?>? Override { get; init; }

    /// <summary>Is called at the start of each forward pass with its number.</summary>
    public Action<int>? OnForward { get; init; }

    public List<int[]> Inputs { get; } = [];

    public int LargestRowCount { get; private set; }

    public void Forward(ReadOnlySpan<int> tokens, Span<float> hidden)
    {
        OnForward?.Invoke(Inputs.Count);
        Inputs.Add(tokens.ToArray());
        Span<float> state = stackalloc float[HiddenSize];
        for (int position = 0; position < tokens.Length; position++)
        {
            for (int i = 0; i < HiddenSize; i++)
            {
                state[i] = (0.5f * state[i]) + _embedding[(tokens[position] * HiddenSize) + i];
                hidden[(position * HiddenSize) + i] = state[i];
            }

            // The position travels with the row, so that Logits knows which one it is asked for.
            hidden[position * HiddenSize] = position;
        }
    }

    public void Logits(ReadOnlySpan<float> hidden, int rowCount, Span<float> logits)
    {
        LargestRowCount = Math.Max(LargestRowCount, rowCount);
        for (int row = 0; row < rowCount; row++)
        {
            ReadOnlySpan<float> state = hidden.Slice(row * HiddenSize, HiddenSize);
            int position = (int)state[0];
            for (int token = 0; token < VocabularySize; token++)
            {
                float sum = 0;
                for (int i = 1; i < HiddenSize; i++) sum += state[i] * _head[(token * HiddenSize) + i];
                logits[(row * VocabularySize) + token] = Override?.Invoke(Inputs.Count - 1, position, token) ?? sum;
            }
        }
    }

    /// <summary>The logits of every position of one window, as the model gives them.</summary>
    public float[][] AllLogits(int[] tokens)
    {
        float[] hidden = new float[tokens.Length * HiddenSize];
        Forward(tokens, hidden);
        float[] logits = new float[tokens.Length * VocabularySize];
        Logits(hidden, tokens.Length, logits);
        return [.. logits.Chunk(VocabularySize)];
    }

    public static int[] RandomTokens(int count, int vocabularySize, int seed)
    {
        Random random = new(seed);
        return [.. Enumerable.Range(0, count).Select(_ => random.Next(vocabularySize))];
    }

    private static float Normal(Random random) =>
        (float)(Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble()));
}
