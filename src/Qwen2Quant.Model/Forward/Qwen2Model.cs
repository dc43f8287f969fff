using System.Globalization;
using System.Numerics.Tensors;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Slot = Qwen2Quant.Model.ForwardScratch.Slot;

namespace Qwen2Quant.Model;

/// <summary>
/// The forward pass of Qwen2 and Qwen2MoE in single precision. A token's results have the same bits whatever the number of threads, and
/// however the text is cut into calls (dynamic rope scaling beyond the trained length excepted, see <see cref="RopeTable"/>).
/// Thread-safe: calls with different caches may run at once.
/// </summary>
public sealed unsafe partial class Qwen2Model
{
    private const int RowsPerTask = 16;

    private readonly LayerWeights[] _layers;
    private readonly WeightMatrix _embedding;
    private readonly WeightMatrix _output;
    private readonly float[] _outputNorm;
    private readonly int _batchTokens;
    private readonly WorkerTeam _team;
    private readonly Attention _attention;
    private readonly MixtureOfExperts _feedForward;

    private Qwen2Model(Qwen2Config config, ITensorSource source, ForwardOptions options)
    {
        Config = config;
        _batchTokens = options.BatchTokens;
        _team = new WorkerTeam(options.Threads);
        _attention = new Attention(config, new RopeTable(config), _team);
        _feedForward = new MixtureOfExperts(config, _team);
        _embedding = new WeightMatrix(source, options.Exact, Entry("model.embed_tokens.weight"));
        _output = config.TieWordEmbeddings ? _embedding : new WeightMatrix(source, options.Exact, Entry("lm_head.weight"));
        _outputNorm = source.ReadAll(Entry("model.norm.weight"));
        _layers = new LayerWeights[config.NumHiddenLayers];
        for (int layer = 0; layer < _layers.Length; layer++) _layers[layer] = new LayerWeights(config, source, layer, options.Exact);

        if (WeightBytes <= options.ResidentBytes) MakeResident();

        TensorEntry Entry(string name) => source.Find(name) ?? throw new ArgumentException($"the source has no {name}", nameof(source));
    }

    public Qwen2Config Config { get; }

    /// <summary>True when all matrices are kept, false when they are read at each use and the source must stay open. Embeddings are read row by row unless they are the output too.</summary>
    public bool IsResident { get; private set; }

    /// <summary>Prepares a model to run.</summary>
    /// <param name="canonicalTensors">All tensors of the configuration's catalogue in their shapes, as <see cref="CanonicalView"/> gives them; owned by the caller, and open as long as the model is used.</param>
    public static Qwen2Model Load(Qwen2Config config, ITensorSource canonicalTensors, ForwardOptions options) => new(config, canonicalTensors, options);

    /// <summary>A cache for a sequence of at most <paramref name="capacity"/> tokens.</summary>
    public KvCache NewCache(int capacity) => NewCache(capacity, 0, Config.NumHiddenLayers);

    /// <summary>A cache of some layers only: <paramref name="layerCount"/> from <paramref name="firstLayer"/> on, until it is moved to others.</summary>
    public KvCache NewCache(int capacity, int firstLayer, int layerCount) => new(Config, capacity, firstLayer, layerCount);

    /// <summary>Runs tokens through the layers after those in <paramref name="cache"/>, and appends them to it.</summary>
    /// <param name="hidden">[tokens, hidden size], receives the states after the final norm.</param>
    /// <param name="observer">Sees the inputs of all linear layers, those of the output included.</param>
    /// <exception cref="QuantException">A token is beyond the vocabulary, the cache is full, or activations are not finite. The cache then holds what it held before.</exception>
    public void Forward(ReadOnlySpan<int> tokens, KvCache cache, Span<float> hidden, IActivationObserver? observer = null)
    {
        if (hidden.Length < (long)tokens.Length * Config.HiddenSize) throw new ArgumentException("too short", nameof(hidden));
        cache.Reserve(tokens.Length);
        int before = cache.Length;
        try
        {
            for (int first = 0; first < tokens.Length; first += _batchTokens)
            {
                int count = Math.Min(_batchTokens, tokens.Length - first);
                fixed (float* states = hidden[(first * Config.HiddenSize)..]) RunBatch(tokens.Slice(first, count), cache, states, new ActivationTap(observer));
            }
        }
        catch
        {
            cache.Length = before;
            throw;
        }
    }

    /// <summary>Logits of hidden states: [rowCount, hidden size] to [rowCount, vocabulary].</summary>
    public void Logits(ReadOnlySpan<float> hidden, int rowCount, Span<float> logits)
    {
        if (hidden.Length < (long)rowCount * Config.HiddenSize) throw new ArgumentException("too short", nameof(hidden));
        if (logits.Length < (long)rowCount * Config.VocabSize) throw new ArgumentException("too short", nameof(logits));
        fixed (float* states = hidden, target = logits) _output.Multiply(states, rowCount, target, _team);
    }

    // An embedding that is not the output is read row by row.
    private IEnumerable<WeightMatrix> MultipliedMatrices => _layers.SelectMany(layer => layer.Matrices).Append(_output);

    /// <summary>Reads all matrices and keeps them.</summary>
    public void MakeResident()
    {
        foreach (WeightMatrix matrix in MultipliedMatrices) matrix.MakeResident(_team);
        IsResident = true;
    }

    /// <summary>Reads the output matrix and keeps it.</summary>
    public void MakeOutputResident() => _output.MakeResident(_team);

    /// <summary>Reads those matrices of a layer, in their order, that fit in <paramref name="bytes"/>; the caller releases what is returned.</summary>
    internal IReadOnlyList<WeightMatrix> LoadLayer(int layer, long bytes, CancellationToken cancellation)
    {
        List<WeightMatrix> loaded = [];
        if (IsResident) return loaded;
        foreach (WeightMatrix matrix in _layers[layer].Matrices)
        {
            cancellation.ThrowIfCancellationRequested();
            if (matrix.ResidentBytes > bytes) continue;
            bytes -= matrix.ResidentBytes;
            loaded.Add(matrix);
            matrix.MakeResident(_team);
        }

        return loaded;
    }

    private void RunBatch(ReadOnlySpan<int> tokens, KvCache cache, float* states, ActivationTap tap)
    {
        int count = tokens.Length;
        float* residual = cache.Scratch.Get(Slot.Residual, (long)count * Config.HiddenSize);
        Embed(tokens, residual);
        for (int layer = 0; layer < _layers.Length; layer++) RunLayer(layer, residual, count, count, cache, tap);
        ApplyOutputNorm(residual, states, count, count, cache, tap);
        cache.Length += count;
        GC.KeepAlive(cache);
    }

    /// <summary>Takes states through one layer in place.</summary>
    /// <param name="states">[count, hidden size]: windows one after the other, each of which follows the tokens in the cache.</param>
    /// <param name="windowLength">Tokens of each window; divides <paramref name="count"/>.</param>
    internal void RunLayer(int layer, float* states, int count, int windowLength, KvCache cache, ActivationTap tap)
    {
        Attend(layer, ShowAttentionInput(layer, states, count, windowLength, cache, tap), count, windowLength, cache, tap, out float* attended);
        AddAttention(layer, attended, count, states);
        float* normalized = NormalizeFeedForward(layer, states, count, windowLength, cache);
        tap.Show(new LinearInput(LinearInputKind.FeedForward, layer), normalized, count, Config.HiddenSize);
        LayerWeights weights = _layers[layer];
        if (weights.Dense is not null)
        {
            float* activated = Activate(layer, normalized, count, cache, tap);
            AddFeedForward(layer, activated, count, states);
        }
        else
        {
            _feedForward.Mix(weights.Sparse!, cache.Scratch, normalized, count, states, layer, tap);
        }

        GC.KeepAlive(cache);
    }

    /// <summary>The final norm of <paramref name="states"/>, which <paramref name="normalized"/> may be.</summary>
    internal void ApplyOutputNorm(float* states, float* normalized, int count, int windowLength, KvCache cache, ActivationTap tap)
    {
        Normalize(states, _outputNorm, normalized, count, windowLength, cache.Length, "the MLP of", _layers.Length - 1);
        tap.Show(LinearInput.Output, normalized, count, Config.HiddenSize);
    }

    internal void Embed(ReadOnlySpan<int> tokens, float* target)
    {
        for (int i = 0; i < tokens.Length; i++)
        {
            if ((uint)tokens[i] >= (uint)Config.VocabSize)
            {
                throw new QuantException(ErrorKind.InvalidInput, "a token is beyond the vocabulary")
                {
                    Found = tokens[i].ToString(CultureInfo.InvariantCulture), Expected = $"0 to {Config.VocabSize - 1}",
                };
            }

            _embedding.ReadRow(tokens[i], new Span<float>(target + ((long)i * Config.HiddenSize), Config.HiddenSize));
        }
    }

    // y = w x / sqrt(mean(x^2) + eps), which may be x; a value that is not finite makes the sum of squares so.
    private void Normalize(float* x, float[] weight, float* y, int rowCount, int windowLength, int firstPosition, string origin, int layer)
    {
        int hidden = Config.HiddenSize;
        _team.Run((rowCount + RowsPerTask - 1) / RowsPerTask, task =>
        {
            int end = Math.Min(rowCount, (task + 1) * RowsPerTask);
            for (int row = task * RowsPerTask; row < end; row++)
            {
                ReadOnlySpan<float> source = new(x + ((long)row * hidden), hidden);
                Span<float> target = new(y + ((long)row * hidden), hidden);
                double squares = TensorPrimitives.SumOfSquares(source);
                if (!double.IsFinite(squares)) squares = SumOfSquares(source);
                if (!double.IsFinite(squares)) throw NotFinite(origin, layer, firstPosition + (row % windowLength));
                TensorPrimitives.Multiply(source, (float)(1 / Math.Sqrt((squares / hidden) + Config.RmsNormEps)), target);
                TensorPrimitives.Multiply(target, weight, target);
            }
        });
    }

    private static double SumOfSquares(ReadOnlySpan<float> values)
    {
        double sum = 0;
        foreach (float value in values) sum += (double)value * value;
        return sum;
    }

    private static QuantException NotFinite(string origin, int layer, int position) => new(ErrorKind.Numeric, "activations are not finite")
    {
        Rule = NumericRules.FiniteActivations,
        Tensor = layer < 0 ? "model.embed_tokens" : string.Create(CultureInfo.InvariantCulture, $"model.layers.{layer}"),
        Found = string.Create(CultureInfo.InvariantCulture, $"an infinity or NaN after {origin}{(layer < 0 ? "" : $" layer {layer}")}, token {position}"),
        Expected = "finite values",
        Remedy = "Check the weights with 'verify'.",
    };
}
