using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Slot = Qwen2Quant.Model.ForwardScratch.Slot;

namespace Qwen2Quant.Model;

/// <summary>How a <see cref="LayerwisePass"/> uses memory; none of it changes a bit of the results.</summary>
public sealed record LayerwiseOptions
{
    /// <summary>Tokens that go through a layer together: whole windows where they are shorter, else stretches of one.</summary>
    public int BatchTokens { get; init; } = 512;

    /// <summary>Bytes for the weights of the layer at work. Matrices that do not fit are read again for each batch.</summary>
    public long LayerBytes { get; init; } = long.MaxValue;

    /// <summary>Keeps the states of all windows; null keeps them in memory. Owned by the pass.</summary>
    public IScratchFile? StateFile { get; init; }

    /// <summary>As <see cref="StateFile"/>, for what <see cref="LayerwisePass.RunLayerByInputs"/> keeps between the inputs of a layer.</summary>
    public IScratchFile? CarryFile { get; init; }
}

/// <summary>
/// Windows of equal length, each a sequence of its own, taken through the model layer by layer: the weights of a layer are read once for
/// all windows and dropped, and only hidden states are kept between layers. States, and what an observer sees of each input, have the same
/// bits as when <see cref="Qwen2Model.Forward"/> runs the windows one after the other. The order of calls: <see cref="Embed"/> for every
/// window, <see cref="RunLayer"/> for every layer from 0 on, <see cref="Finish"/>, then <see cref="ReadStates"/>. For one thread at a time.
/// </summary>
public sealed unsafe partial class LayerwisePass : IDisposable
{
    private readonly Qwen2Model _model;
    private readonly LayerwiseOptions _options;
    private readonly StateRows _states;
    private KvCache? _cache;
    private StateRows? _carry;

    /// <param name="windowLength">Tokens of each window.</param>
    public LayerwisePass(Qwen2Model model, int windowCount, int windowLength, LayerwiseOptions options)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(options.BatchTokens, 1);
        _model = model;
        _options = options;
        WindowCount = windowCount;
        WindowLength = windowLength;
        _states = new StateRows((long)windowCount * windowLength, model.Config.HiddenSize, options.StateFile);
        _cache = model.NewCache(windowLength, 0, 1);
    }

    public int WindowCount { get; }

    private KvCache Cache => _cache ?? throw new InvalidOperationException("the pass is finished");

    public int WindowLength { get; }

    /// <summary>Sets the states of a window to the embedding of its tokens.</summary>
    /// <exception cref="QuantException">A token is beyond the vocabulary, or the weights or the state file fail.</exception>
    public void Embed(int window, ReadOnlySpan<int> tokens)
    {
        if (tokens.Length != WindowLength) throw new ArgumentException($"{tokens.Length} tokens, not {WindowLength}", nameof(tokens));
        for (int first = 0; first < WindowLength; first += _options.BatchTokens)
        {
            int count = Math.Min(_options.BatchTokens, WindowLength - first);
            float* states = Residual(count);
            _model.Embed(tokens.Slice(first, count), states);
            _states.Write(((long)window * WindowLength) + first, states, count);
        }
    }

    /// <summary>Takes all windows through one layer.</summary>
    /// <param name="observer">Sees the inputs of its linear layers, in the order of the windows.</param>
    /// <param name="advance">Is told how many tokens have gone through.</param>
    /// <exception cref="QuantException">Activations are not finite, or the weights or the state file fail.</exception>
    /// <exception cref="OperationCanceledException">Between two matrices or batches.</exception>
    public void RunLayer(int layer, IActivationObserver? observer = null, Action<int>? advance = null, CancellationToken cancellation = default)
    {
        ActivationTap tap = new(observer);
        Cache.MoveTo(layer);
        IReadOnlyList<WeightMatrix> loaded = _model.LoadLayer(layer, _options.LayerBytes, cancellation);
        try
        {
            ForEachBatch((states, _, count, windowLength) =>
            {
                _model.RunLayer(layer, states, count, windowLength, Cache, tap);
                advance?.Invoke(count);
            }, cancellation);
        }
        finally
        {
            foreach (WeightMatrix matrix in loaded) matrix.Release();
        }
    }

    /// <summary>Applies the final norm to all states, and frees what only layers need.</summary>
    /// <param name="observer">Sees the input of the output matrix.</param>
    /// <exception cref="QuantException">Activations are not finite, or the state file fails.</exception>
    public void Finish(IActivationObserver? observer = null, CancellationToken cancellation = default)
    {
        ActivationTap tap = new(observer);
        ForEachBatch((states, _, count, windowLength) => _model.ApplyOutputNorm(states, states, count, windowLength, Cache, tap), cancellation);
        FreeLayerMemory();
    }

    /// <summary>Copies the states of a window, [tokens, hidden size].</summary>
    /// <exception cref="QuantException">The state file fails.</exception>
    public void ReadStates(int window, Span<float> states)
    {
        if (states.Length < (long)WindowLength * _model.Config.HiddenSize) throw new ArgumentException("too short", nameof(states));
        fixed (float* target = states) _states.Read((long)window * WindowLength, target, WindowLength);
    }

    public void Dispose()
    {
        _states.Dispose();
        _carry?.Dispose();
        // Owned, whether it was used or not.
        _options.CarryFile?.Dispose();
        FreeLayerMemory();
    }

    private void FreeLayerMemory()
    {
        _carry?.Dispose();
        _carry = null;
        _cache?.Scratch.Dispose();
        _cache = null;
    }

    private delegate void BatchAction(float* states, long firstRow, int count, int windowLength);

    /// <summary>Reads states, changes them in place and writes them back: whole windows, or stretches of one with the tokens before them in the cache.</summary>
    /// <param name="keepsStates">They are not written back.</param>
    private void ForEachBatch(BatchAction action, CancellationToken cancellation, bool keepsStates = false)
    {
        int stretch = Math.Min(_options.BatchTokens, WindowLength);
        int windowsPerBatch = Math.Max(_options.BatchTokens / WindowLength, 1);
        for (int window = 0; window < WindowCount; window += windowsPerBatch)
        {
            int windows = Math.Min(windowsPerBatch, WindowCount - window);
            Cache.Truncate(0);
            Cache.Reserve(WindowLength);
            for (int first = 0; first < WindowLength; first += stretch)
            {
                cancellation.ThrowIfCancellationRequested();
                int length = Math.Min(stretch, WindowLength - first);
                int count = windows * length;
                long firstRow = ((long)window * WindowLength) + first;
                float* states = Residual(count);
                _states.Read(firstRow, states, count);
                action(states, firstRow, count, length);
                if (!keepsStates) _states.Write(firstRow, states, count);
                Cache.Length = first + length;
            }
        }

        GC.KeepAlive(Cache);
    }

    private float* Residual(int count) => Cache.Scratch.Get(Slot.Residual, (long)count * _model.Config.HiddenSize);
}
