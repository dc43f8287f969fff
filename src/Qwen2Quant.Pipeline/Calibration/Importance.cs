using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Calibration;

/// <summary>Which entries of an importance matrix are used: those whose names hold one of the texts, or all but those.</summary>
/// <param name="Include">All when empty.</param>
public sealed record ImportanceFilter(IReadOnlyList<string> Include, IReadOnlyList<string> Exclude)
{
    public static ImportanceFilter All { get; } = new([], []);

    public bool Takes(string name) =>
        (Include.Count == 0 || Include.Any(text => name.Contains(text, StringComparison.Ordinal))) && !Exclude.Any(text => name.Contains(text, StringComparison.Ordinal));
}

/// <summary>Weights for the encoders, checked against a model: one for each column of a tensor, for stacked experts of each expert.</summary>
public sealed class Importance
{
    private const string Embedding = "token_embd.weight";
    private const string LayerPrefix = "blk.";

    private readonly Dictionary<string, (float[] Weights, long[] Counts)> _byName = new(StringComparer.Ordinal);
    private readonly Imatrix _imatrix;
    private readonly string? _path;

    private Importance(Imatrix imatrix, string? path) => (_imatrix, _path) = (imatrix, path);

    /// <summary>Takes the entries of a matrix that belong to a model.</summary>
    /// <param name="path">Of the file; null for statistics collected in memory.</param>
    /// <param name="strict">Refuses experts that saw no tokens.</param>
    /// <exception cref="QuantException">NU-91: the statistics are another model's. NU-92.</exception>
    public static Importance Create(Imatrix imatrix, TensorCatalogue catalogue, string? path, ImportanceFilter filter, bool strict, RunContext context)
    {
        CheckModel(imatrix, catalogue, path ?? "", context);
        ReportUnseenExperts(imatrix, strict, path, context);
        Importance importance = new(imatrix, path);
        Dictionary<string, long> lengths = Lengths(catalogue);
        foreach (ImatrixEntry entry in imatrix.Entries.Where(entry => filter.Takes(entry.Name)))
        {
            if (lengths.TryGetValue(entry.Name, out long length) && length == entry.Sums.Length) importance._byName.Add(entry.Name, (entry.MeanSquares(), entry.Counts));
        }

        return importance;
    }

    /// <summary>Refuses statistics of another model: no name of this one, a tensor inside the layers that it does not have, or other lengths. Names outside the layers are events.</summary>
    public static void CheckModel(Imatrix imatrix, TensorCatalogue catalogue, string path, RunContext context)
    {
        Dictionary<string, long> lengths = Lengths(catalogue);
        if (!imatrix.Entries.Any(entry => lengths.ContainsKey(entry.Name)))
        {
            throw AnotherModel(path, "none of its names are this model's", imatrix.Entries[0].Name, null, null);
        }

        foreach (ImatrixEntry entry in imatrix.Entries)
        {
            if (!lengths.TryGetValue(entry.Name, out long length))
            {
                if (entry.Name.StartsWith(LayerPrefix, StringComparison.Ordinal)) throw AnotherModel(path, "it has a tensor that this one has not", entry.Name, null, null);
                context.Events.Report(new QuantEvent("imatrix-surplus", $"{TextEscape.Escape(entry.Name)}: the model has no such tensor; its importance is not used"));
                continue;
            }

            if (entry.Sums.Length == length) continue;
            // Files exist whose embedding entry has another length; llama-quantize passes over it.
            if (entry.Name == Embedding) context.Events.Report(new QuantEvent("imatrix-ignored", $"{entry.Name}: {entry.Sums.Length} values of importance for {length}; not used", entry.Name));
            else throw AnotherModel(path, "a tensor has another size", entry.Name, $"{entry.Sums.Length} values", $"{length}");
        }
    }

    /// <summary>An event for every stack with experts that saw no tokens, or the refusal of the first.</summary>
    public static void ReportUnseenExperts(Imatrix imatrix, bool strict, string? path, RunContext context)
    {
        foreach (ImatrixEntry entry in imatrix.Entries)
        {
            int[] unseen = [.. Enumerable.Range(0, entry.Counts.Length).Where(expert => entry.Counts[expert] == 0)];
            if (unseen.Length == 0) continue;
            string list = string.Join(", ", unseen);
            if (strict)
            {
                throw new QuantException(ErrorKind.Substitution, "--strict refuses experts that saw no tokens")
                {
                    Rule = StatisticsRules.ExpertsSeen,
                    Path = path,
                    Tensor = entry.Name,
                    Found = $"experts {list}",
                    Remedy = "Calibrate on more, or more varied, text.",
                };
            }

            context.Events.Report(new QuantEvent(
                "experts-unseen", $"{entry.Name}: no tokens for experts {list}; all their columns weigh the same [{StatisticsRules.ExpertsSeen.Id}]", entry.Name, IsSubstitution: true));
        }
    }

    /// <summary>Weights of part <paramref name="part"/> of a tensor's <paramref name="partCount"/>; empty where there are none.</summary>
    public ReadOnlyMemory<float> Weights(string name, int part, int partCount)
    {
        if (!_byName.TryGetValue(name, out (float[] Weights, long[] Counts) found)) return default;
        int width = found.Weights.Length / partCount;
        return found.Weights.AsMemory(part * width, width);
    }

    /// <summary>Tokens behind a tensor's weights, of its least seen expert; null where there are none.</summary>
    public long? TokensSeen(string name) => _byName.TryGetValue(name, out (float[] Weights, long[] Counts) found) ? found.Counts.Min() : null;

    /// <summary>Equal when the weights are, and what is said of them.</summary>
    public string Identity
    {
        get
        {
            using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            foreach ((string name, (float[] weights, _)) in _byName)
            {
                hash.AppendData(Encoding.UTF8.GetBytes(name));
                hash.AppendData(MemoryMarshal.AsBytes(weights.AsSpan()));
            }

            return Convert.ToHexStringLower(hash.GetHashAndReset());
        }
    }

    /// <summary>The keys that llama-quantize adds.</summary>
    public void WriteMetadata(GgufMetadata metadata)
    {
        if (_path is not null) metadata.Set("quantize.imatrix.file", GgufValue.String(_path));
        if (_imatrix.Datasets.Count > 0) metadata.Set("quantize.imatrix.dataset", GgufValue.String(_imatrix.Datasets[0]));
        metadata.Set("quantize.imatrix.entries_count", GgufValue.Scalar((uint)_byName.Count));
        if (_imatrix.ChunkCount > 0) metadata.Set("quantize.imatrix.chunks_count", GgufValue.Scalar((uint)_imatrix.ChunkCount));
    }

    /// <summary>Values that the entry of each tensor must have: a row's length, for stacks times the experts.</summary>
    private static Dictionary<string, long> Lengths(TensorCatalogue catalogue) =>
        GgufNames.Plan(catalogue).ToDictionary(tensor => tensor.Name, tensor => tensor.Shape.RowLength * tensor.Parts.Count, StringComparer.Ordinal);

    private static QuantException AnotherModel(string path, string why, string tensor, string? found, string? expected) => new(ErrorKind.InvalidInput, $"the importance matrix is another model's: {why}")
    {
        Rule = StatisticsRules.Usable,
        Path = path,
        Tensor = tensor,
        Found = found,
        Expected = expected,
        Remedy = "Make one of this model with calibrate.",
    };
}
