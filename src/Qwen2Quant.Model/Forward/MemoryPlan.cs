using System.Globalization;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Model;

/// <summary>The windows that a pass takes through one model or several.</summary>
/// <param name="Length">Tokens of each window.</param>
/// <param name="ScoredPerWindow">Positions of each window whose logits are wanted.</param>
public sealed record WindowShape(int Count, int Length, int ScoredPerWindow);

/// <summary>
/// What models that run over windows keep in memory, decided from one number of bytes for the whole process: all weights if they fit, else
/// those of one layer at a time, with the states of all windows between layers in memory or in a file. It changes no bit of any result.
/// </summary>
public sealed record MemoryPlan
{
    /// <summary>The runtime, its code and its heap without models.</summary>
    public const long RuntimeBytes = 64L << 20;

    // Of each entry of the vocabulary: strings, tables and merges of a tokenizer.
    private const long TokenizerBytesPerToken = 256;

    // Rows of logits computed together: a few hundred rows make the cost of reading the output matrix small.
    private const long MaxLogitBytes = 512L << 20;
    private const long UsualLogitBytes = 32L << 20;

    // A layer's weights are decoded for each batch: with fewer tokens that costs, with more their activations leave the caches.
    private const int MaxBatchTokens = 512;
    private const int MinBatchTokens = 32;

    private const int HeapShare = 50;

    private MemoryPlan()
    {
    }

    /// <summary>Bytes for a process unless told otherwise: three quarters of the memory that the machine or container gives it.</summary>
    public static long DefaultBytes => GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / 4 * 3;

    /// <summary>True when all weights are kept and windows run one after the other; false for a <see cref="LayerwisePass"/>.</summary>
    public bool IsWhole { get; private init; }

    /// <summary>Bytes for the weights of one layer.</summary>
    public long LayerBytes { get; private init; }

    /// <summary>False when a layer has matrices beyond <see cref="LayerBytes"/>, which are then read for each batch.</summary>
    public bool HoldsLayer { get; private init; }

    /// <summary>Tokens that go through a layer together.</summary>
    public int BatchTokens { get; private init; }

    /// <summary>Whether the states of all windows go to a file of <see cref="StateBytes"/>.</summary>
    public bool SpillsStates { get; private init; }

    /// <summary>Bytes of the states of all windows, of all models together.</summary>
    public long StateBytes { get; private init; }

    /// <summary>Whether the output matrices are kept while logits are computed.</summary>
    public bool HoldsOutput { get; private init; }

    /// <summary>Bytes of logits at a time for each model; one row at least.</summary>
    public long LogitBytes { get; private init; }

    /// <summary>Bytes that the process will take, of a plan by inputs.</summary>
    public long PlannedBytes { get; private init; }

    /// <summary>Decides for models that run over the same windows, one after the other, and whose logits are then compared.</summary>
    /// <param name="bytes">For the whole process.</param>
    /// <param name="heldBytes">What the caller keeps besides, such as statistics.</param>
    /// <exception cref="QuantException">Resource: not even a few tokens fit; the smallest number of bytes that does is named.</exception>
    public static MemoryPlan Decide(long bytes, IReadOnlyList<Qwen2Model> models, WindowShape windows, long heldBytes = 0)
    {
        long fixedBytes = heldBytes + RuntimeBytes + models.Max(model => model.SlabBytes)
            + models.Sum(model => (model.Config.VocabSize * TokenizerBytesPerToken) + model.StateBytes(windows.Length));
        long available = bytes - fixedBytes;
        long Logits(long atMost) => models.Sum(model => Math.Clamp(atMost / model.LogitRowBytes, 1, windows.ScoredPerWindow) * model.LogitRowBytes);
        long LogitsWithin(long left) => Math.Min(MaxLogitBytes, left / models.Count);

        long whole = models.Sum(model => model.WeightBytes + model.ActivationBytes(Math.Min(model.BatchTokens, windows.Length)) + KvCache.ByteCount(model.Config, windows.Length));
        if (whole + Logits(UsualLogitBytes) <= available) return new MemoryPlan { IsWhole = true, LogitBytes = LogitsWithin(available - whole) };

        long states = models.Sum(model => windows.Count * model.StateBytes(windows.Length));
        long outputs = models.Sum(model => model.OutputBytes);
        long Working(int tokens) => models.Max(model => model.ActivationBytes(tokens) + KvCache.ByteCountOfLayer(model.Config, windows.Length));
        long layer = models.Max(model => model.LargestLayerBytes);
        int[] batches = [.. BatchSizes(windows)];
        foreach (int tokens in batches)
        {
            foreach (bool spills in new[] { false, true })
            {
                long kept = spills ? 0 : states;
                if (kept + Math.Max(Working(tokens) + layer, Logits(UsualLogitBytes)) <= available) return Layerwise(tokens, spills, layer);
            }
        }

        long smallest = Math.Max(Working(batches[^1]), Logits(0));
        if (smallest > available) throw TooSmall(bytes, fixedBytes + smallest);
        // Half for the weights that can stay, half for a batch that is worth reading the others for.
        int most = batches.FirstOrDefault(tokens => Working(tokens) <= available / 2, batches[^1]);
        return Layerwise(most, spills: true, available - Working(most));

        MemoryPlan Layerwise(int tokens, bool spills, long layerBytes)
        {
            long left = available - (spills ? 0 : states);
            bool holdsOutput = outputs + Logits(UsualLogitBytes) <= left;
            return new MemoryPlan
            {
                LayerBytes = layerBytes, HoldsLayer = layerBytes >= layer, BatchTokens = tokens, SpillsStates = spills, StateBytes = states,
                HoldsOutput = holdsOutput, LogitBytes = LogitsWithin(holdsOutput ? left - outputs : left),
            };
        }
    }

    /// <summary>Decides for a model whose layers are taken input by input (<see cref="LayerwisePass.RunLayerByInputs"/>), which never keeps more weights than a layer's.</summary>
    /// <param name="heldBytes">What the caller keeps besides: statistics of a layer's inputs, and what it solves with.</param>
    /// <param name="passCount">Passes over the windows side by side.</param>
    /// <exception cref="QuantException">As for <see cref="Decide"/>.</exception>
    public static MemoryPlan DecideByInputs(long bytes, Qwen2Model model, WindowShape windows, long heldBytes, int passCount = 1)
    {
        // The heap keeps some of what large arrays leave free: 1 to 2 % of all were measured with layers of the 7B and the 72B.
        long fixedBytes = heldBytes + (heldBytes / HeapShare) + RuntimeBytes + model.SlabBytes + (model.Config.VocabSize * TokenizerBytesPerToken);
        long available = bytes - fixedBytes, layer = passCount * model.LargestLayerBytes;
        long states = passCount * windows.Count * model.StateBytes(windows.Length), carry = passCount * (long)windows.Count * windows.Length * model.CarryWidth * sizeof(float);
        long Working(int tokens) => passCount * (model.ActivationBytes(tokens) + KvCache.ByteCountOfLayer(model.Config, windows.Length));
        int[] batches = [.. BatchSizes(windows)];
        foreach (int tokens in batches)
        {
            foreach (bool spills in new[] { false, true })
            {
                long needed = Working(tokens) + layer + (spills ? 0 : states + carry);
                if (needed <= available) return Plan(tokens, spills, model.LargestLayerBytes, fixedBytes + needed);
            }
        }

        long least = Working(batches[^1]);
        if (least > available) throw TooSmall(bytes, fixedBytes + least);
        return Plan(batches[^1], spills: true, (available - least) / passCount, bytes);

        MemoryPlan Plan(int tokens, bool spills, long layerBytes, long planned) => new()
        {
            LayerBytes = layerBytes, HoldsLayer = layerBytes >= model.LargestLayerBytes, BatchTokens = tokens, SpillsStates = spills, StateBytes = states + carry, PlannedBytes = planned,
        };
    }

    /// <summary>Batches to try, from the largest: whole windows, or a part of one.</summary>
    private static IEnumerable<int> BatchSizes(WindowShape windows)
    {
        for (int tokens = MaxBatchTokens; tokens >= MinBatchTokens; tokens /= 2)
        {
            yield return tokens < windows.Length ? tokens : Math.Min(tokens / windows.Length, windows.Count) * windows.Length;
        }
    }

    private static QuantException TooSmall(long given, long needed)
    {
        const long Megabyte = 1_000_000;
        return new QuantException(ErrorKind.Resource, "the memory given is too small to run the model")
        {
            Found = string.Create(CultureInfo.InvariantCulture, $"{given} bytes"),
            Expected = string.Create(CultureInfo.InvariantCulture, $"at least {(needed + Megabyte - 1) / Megabyte}MB"),
            Remedy = "Raise --memory, or take fewer --threads or a smaller --context.",
        };
    }
}
