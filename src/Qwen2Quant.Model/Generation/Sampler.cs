using System.Globalization;
using System.Numerics.Tensors;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;

namespace Qwen2Quant.Model;

/// <summary>
/// Chooses tokens from logits: penalty, temperature, top-k, top-p, then one draw, in Transformers' order. Of equal logits the lower id comes first.
/// Weights are whole numbers, so that their sums do not depend on the order in which they are taken: nothing is sorted, and the choice is
/// that of a full sort. Not thread-safe.
/// </summary>
public sealed unsafe class Sampler
{
    /// <summary>
    /// The greatest weight. Sums over a vocabulary of up to 2^19 tokens are whole doubles up to 2^53, hence exact; a token whose probability is
    /// below 2^-34 (6e-11) of the first one's is never drawn.
    /// </summary>
    private const float Unit = 1L << 34;

    // Scores are looked at one by one only in blocks whose greatest one matters.
    private const int BlockLength = 64;

    // Values converted at a time: their doubles stay in the first-level cache.
    private const int ChunkLength = 1024;

    // Bins of scores, an eighth of the temperature wide, down to where weights are 0: only one of them is looked at token by token.
    private const int BinsPerTemperature = 8, BinCount = 24 * BinsPerTemperature;

    private readonly SamplingOptions _options;
    private readonly SplitMix64 _random;
    private readonly bool[] _hasOccurred;
    private readonly List<int> _occurred = [];
    private readonly float[] _blockMaxima;
    private readonly float[] _blockOrder;
    private readonly float[] _weights;
    private readonly double[] _binMasses = new double[BinCount];
    private readonly int[] _candidates;
    private readonly float _inverseTemperature;
    private readonly float _binScale;
    private int _candidateCount;

    /// <exception cref="QuantException">An option is out of range.</exception>
    public Sampler(SamplingOptions options, int vocabularySize)
    {
        if (options.Problem is { } problem) throw new QuantException(ErrorKind.Usage, problem);
        ArgumentOutOfRangeException.ThrowIfLessThan(vocabularySize, 1);
        _options = options;
        _random = new SplitMix64(options.Seed);
        _hasOccurred = new bool[vocabularySize];
        _blockMaxima = new float[(vocabularySize + BlockLength - 1) / BlockLength];
        _blockOrder = new float[_blockMaxima.Length];
        _weights = IsGreedy ? [] : new float[vocabularySize];
        _candidates = IsGreedy ? [] : new int[vocabularySize];
        _inverseTemperature = (float)Math.Min(1 / options.Temperature, float.MaxValue);
        _binScale = Math.Min(_inverseTemperature * BinsPerTemperature, float.MaxValue);
    }

    private bool IsGreedy => _options.Temperature == 0 || _options.TopK == 1;

    /// <summary>Tells of a token of the text, for the penalty; each counts once.</summary>
    public void Accept(int token)
    {
        if (_hasOccurred[token]) return;
        _hasOccurred[token] = true;
        _occurred.Add(token);
    }

    /// <summary>Forgets which tokens occurred.</summary>
    public void Forget()
    {
        foreach (int token in _occurred) _hasOccurred[token] = false;
        _occurred.Clear();
    }

    /// <summary>Chooses by the next random number.</summary>
    /// <param name="logits">One value for each token; those of tokens that occurred are changed by the penalty.</param>
    /// <exception cref="QuantException">A logit is not finite.</exception>
    public int Choose(Span<float> logits) => Choose(logits, IsGreedy ? 0 : _random.NextDouble());

    /// <param name="draw">From 0 to below 1; not used when greedy.</param>
    internal int Choose(Span<float> logits, double draw)
    {
        if (logits.Length != _hasOccurred.Length) throw new ArgumentException($"{logits.Length} logits for {_hasOccurred.Length} tokens", nameof(logits));
        Penalize(logits);
        int wrong = FiniteCheck.FindNonFinite(logits);
        if (wrong >= 0) throw new QuantException(ErrorKind.Numeric, string.Create(CultureInfo.InvariantCulture, $"the logit of token {wrong} is not finite")) { Rule = NumericRules.FiniteActivations };
        for (int block = 0; block < _blockMaxima.Length; block++) _blockMaxima[block] = TensorPrimitives.Max(Block(logits, block));
        float maximum = TensorPrimitives.Max<float>(_blockMaxima);
        if (IsGreedy) return FirstOf(logits, maximum);

        double mass;
        if (_options.TopK > 0)
        {
            TakeTopK(logits);
            mass = WeighCandidates(logits, maximum);
        }
        else
        {
            mass = WeighAll(logits, maximum);
        }

        // The nucleus is the shortest run of the most probable tokens that together have at least top-p of the mass.
        if (_options.TopP < 1) Reach(logits, maximum, Math.Max(Math.Ceiling(_options.TopP * mass), 1), out mass);
        // The first token at which the running sum of weights exceeds draw times their sum.
        return Reach(logits, maximum, Math.Min(Math.Floor(draw * mass), mass - 1) + 1, out _);
    }

    /// <summary>The token at which, from the most probable one on, the running sum of weights reaches <paramref name="need"/>.</summary>
    /// <param name="need">Above 0 and at most the sum of all weights.</param>
    /// <param name="sum">The running sum with that token.</param>
    private int Reach(ReadOnlySpan<float> scores, float maximum, double need, out double sum)
    {
        double above = 0;
        if (_options.TopK == 0)
        {
            int bin = 0;
            for (; above + _binMasses[bin] < need; bin++) above += _binMasses[bin];
            TakeBin(scores, maximum, bin);
        }

        int token = _candidates[Cut(scores, need - above, out double before)];
        sum = above + before + _weights[token];
        return token;
    }

    private void Penalize(Span<float> logits)
    {
        if (_options.RepetitionPenalty == 1) return;
        float penalty = (float)_options.RepetitionPenalty;
        foreach (int token in _occurred) logits[token] = logits[token] > 0 ? logits[token] / penalty : logits[token] * penalty;
    }

    private int FirstOf(ReadOnlySpan<float> scores, float value)
    {
        int token = _blockMaxima.AsSpan().IndexOf(value) * BlockLength;
        while (scores[token] != value) token++;
        return token;
    }

    /// <summary>Makes the candidates the top-k tokens, in no order.</summary>
    private void TakeTopK(ReadOnlySpan<float> scores)
    {
        int wanted = Math.Min(_options.TopK, scores.Length);
        // As many blocks as are wanted have a token of at least this score, so the wanted ones do too.
        float least = float.NegativeInfinity;
        if (wanted <= _blockMaxima.Length)
        {
            _blockMaxima.CopyTo(_blockOrder, 0);
            Array.Sort(_blockOrder);
            least = _blockOrder[^wanted];
        }

        _candidateCount = 0;
        for (int block = 0; block < _blockMaxima.Length; block++)
        {
            if (_blockMaxima[block] < least) continue;
            int first = block * BlockLength;
            ReadOnlySpan<float> values = Block(scores, block);
            for (int i = 0; i < values.Length; i++)
            {
                if (values[i] >= least) _candidates[_candidateCount++] = first + i;
            }
        }

        for (int i = 0; i < _candidateCount; i++) _weights[_candidates[i]] = 1;
        _candidateCount = Cut(scores, wanted, out _) + 1;
    }

    /// <summary>Makes the candidates all tokens of a bin, in the order of their ids.</summary>
    private void TakeBin(ReadOnlySpan<float> scores, float maximum, int bin)
    {
        _candidateCount = 0;
        for (int block = 0; block < _blockMaxima.Length; block++)
        {
            if (Bin(maximum, _blockMaxima[block]) > bin) continue;
            int first = block * BlockLength;
            ReadOnlySpan<float> values = Block(scores, block);
            for (int i = 0; i < values.Length; i++)
            {
                if (Bin(maximum, values[i]) == bin) _candidates[_candidateCount++] = first + i;
            }
        }
    }

    /// <summary>Tokens of a greater score are in the same bin or an earlier one: rounding keeps the order.</summary>
    private int Bin(float maximum, float score) => (int)Math.Min((maximum - score) * _binScale, BinCount - 1);

    /// <summary>Weights of all tokens by id, and the mass of each bin; returns the sum.</summary>
    private double WeighAll(ReadOnlySpan<float> scores, float maximum)
    {
        double mass = 0;
        Array.Clear(_binMasses);
        for (int first = 0; first < scores.Length; first += ChunkLength)
        {
            int count = Math.Min(ChunkLength, scores.Length - first);
            mass += Weigh(scores.Slice(first, count), _weights.AsSpan(first, count), maximum);
            for (int id = first; id < first + count; id++) _binMasses[Bin(maximum, scores[id])] += _weights[id];
        }

        return mass;
    }

    /// <summary>Weights of the candidates by id; returns their sum.</summary>
    private double WeighCandidates(ReadOnlySpan<float> scores, float maximum)
    {
        Span<float> values = stackalloc float[ChunkLength];
        double mass = 0;
        for (int first = 0; first < _candidateCount; first += ChunkLength)
        {
            ReadOnlySpan<int> ids = _candidates.AsSpan(first, Math.Min(ChunkLength, _candidateCount - first));
            for (int i = 0; i < ids.Length; i++) values[i] = scores[ids[i]];
            mass += Weigh(values[..ids.Length], values[..ids.Length], maximum);
            for (int i = 0; i < ids.Length; i++) _weights[ids[i]] = values[i];
        }

        return mass;
    }

    /// <summary>Whole weights of up to <see cref="ChunkLength"/> scores; returns their sum. A weight has the same bits wherever it stands.</summary>
    private double Weigh(ReadOnlySpan<float> scores, Span<float> weights, float maximum)
    {
        TensorPrimitives.Subtract(scores, maximum, weights);
        TensorPrimitives.Multiply(weights, _inverseTemperature, weights);
        fixed (float* values = weights) RowKernels.ExpAndSum(values, weights.Length, 0);
        TensorPrimitives.Multiply(weights, Unit, weights);
        TensorPrimitives.Truncate<float>(weights, weights);
        Span<double> wide = stackalloc double[ChunkLength];
        wide = wide[..weights.Length];
        TensorPrimitives.ConvertTruncating<float, double>(weights, wide);
        return TensorPrimitives.Sum<double>(wide);
    }

    /// <summary>
    /// Quickselect by mass: brings the most probable candidates to the front and returns the index of the one at which, in sorted order, the
    /// running sum of weights reaches <paramref name="need"/>; those before it are the more probable ones.
    /// </summary>
    /// <param name="need">Above 0 and at most the candidates' mass.</param>
    /// <param name="before">The mass of those before it.</param>
    private int Cut(ReadOnlySpan<float> scores, double need, out double before)
    {
        int low = 0, high = _candidateCount;
        before = 0;
        while (high - low > 1)
        {
            MoveMedianToEnd(scores, low, high);
            int pivot = _candidates[high - 1];
            int place = low;
            double mass = 0;
            for (int i = low; i < high - 1; i++)
            {
                int id = _candidates[i];
                if (!Precedes(scores, id, pivot)) continue;
                mass += _weights[id];
                _candidates[i] = _candidates[place];
                _candidates[place++] = id;
            }

            (_candidates[place], _candidates[high - 1]) = (pivot, _candidates[place]);
            if (before + mass >= need)
            {
                high = place;
                continue;
            }

            before += mass;
            if (before + _weights[pivot] >= need) return place;
            before += _weights[pivot];
            low = place + 1;
        }

        return low;
    }

    /// <summary>The median of the first, middle and last of a range becomes the last.</summary>
    private void MoveMedianToEnd(ReadOnlySpan<float> scores, int low, int high)
    {
        ref int a = ref _candidates[low], b = ref _candidates[low + ((high - low) / 2)], c = ref _candidates[high - 1];
        if (Precedes(scores, b, a)) (a, b) = (b, a);
        if (Precedes(scores, c, b)) (b, c) = (c, b);
        if (Precedes(scores, b, a)) (a, b) = (b, a);
        (b, c) = (c, b);
    }

    private static bool Precedes(ReadOnlySpan<float> scores, int a, int b) => scores[a] > scores[b] || (scores[a] == scores[b] && a < b);

    private static ReadOnlySpan<float> Block(ReadOnlySpan<float> scores, int block) =>
        scores.Slice(block * BlockLength, Math.Min(BlockLength, scores.Length - (block * BlockLength)));
}
