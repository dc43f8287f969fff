using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Model;

/// <summary>
/// A checkpoint under canonical names, whatever it calls its tensors: Hugging Face's names with experts one by one or fused
/// (<c>mlp.experts.gate_up_proj</c> [E, 2F, H], gate first, and <c>mlp.experts.down_proj</c> [E, H, F]), or MLX's and GGUF's with experts stacked.
/// Entries point into the source's bytes; nothing is copied.
/// </summary>
public sealed class CanonicalView : ITensorSource
{
    private readonly ITensorSource _source;
    private readonly Dictionary<string, TensorEntry> _byName;

    private CanonicalView(ITensorSource source, TensorCatalogue catalogue, Dictionary<string, TensorEntry> byName)
    {
        _source = source;
        Catalogue = catalogue;
        _byName = byName;
        Tensors = [.. catalogue.Tensors.Select(tensor => byName[tensor.Name])];
    }

    public TensorCatalogue Catalogue { get; }

    /// <summary>The catalogue's tensors in its order.</summary>
    public IReadOnlyList<TensorEntry> Tensors { get; }

    /// <summary>Views <paramref name="source"/>, which the view owns from then on, as the tensors of a configuration.</summary>
    /// <param name="path">Shown in errors.</param>
    /// <exception cref="QuantException">HF-72, HF-73.</exception>
    public static CanonicalView Over(ITensorSource source, TensorCatalogue catalogue, string path)
    {
        Dictionary<string, TensorEntry> byName = new(StringComparer.Ordinal);
        List<(string, Shape)> found = [];
        bool isGguf = source.Find("token_embd.weight") is not null;
        foreach (TensorEntry entry in source.Tensors)
        {
            if (TensorCatalogue.IsSkipped(entry.Name)) continue;
            foreach (TensorEntry part in isGguf ? FromGguf(entry, catalogue.Config) : FromHuggingFace(entry, catalogue.Config))
            {
                TensorEntry canonical = part.Name.EndsWith(".mlp.shared_expert_gate.weight", StringComparison.Ordinal) && part.Shape.Rank == 1
                    ? part with { Shape = new Shape(1, part.Shape.ValueCount) }
                    : part;
                byName.TryAdd(canonical.Name, canonical);
                found.Add((canonical.Name, canonical.Shape));
            }
        }

        TensorEntry? output = byName.GetValueOrDefault("lm_head.weight");
        if (output is null && !catalogue.Config.TieWordEmbeddings && byName.Count > 0) catalogue.CheckTie(false, static () => false, path);
        catalogue.Check(found, path);
        catalogue.CheckTie(output is not null, () => HaveEqualValues(source, output!, byName["model.embed_tokens.weight"]), path);
        return new CanonicalView(source, catalogue, byName);
    }

    public TensorEntry? Find(string name) => Catalogue.Find(name) is null ? null : _byName[name];

    public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination) => _source.ReadRaw(entry, byteOffset, destination);

    public void Dispose() => _source.Dispose();

    private static IEnumerable<TensorEntry> FromGguf(TensorEntry entry, Qwen2Config config)
    {
        if (entry.Name.EndsWith(".ffn_gate_up_exps.weight", StringComparison.Ordinal) && IsStack(entry, config) && entry.Shape[1] % 2 == 0)
        {
            string stem = entry.Name[..^"gate_up_exps.weight".Length];
            return Unstack(entry).SelectMany((stack, expert) => Halves(
                stack, GgufNames.ToHuggingFace($"{stem}gate_exps.weight", expert) ?? entry.Name, GgufNames.ToHuggingFace($"{stem}up_exps.weight", expert) ?? entry.Name));
        }

        if (GgufNames.ToHuggingFace(entry.Name, 0) is not null && IsStack(entry, config))
        {
            return Unstack(entry).Select((stack, expert) => stack with { Name = GgufNames.ToHuggingFace(entry.Name, expert)! });
        }

        return [entry with { Name = GgufNames.ToHuggingFace(entry.Name) ?? entry.Name }];
    }

    private static IEnumerable<TensorEntry> FromHuggingFace(TensorEntry entry, Qwen2Config config)
    {
        const string GateUp = ".mlp.experts.gate_up_proj";
        const string Down = ".mlp.experts.down_proj";
        if (entry.Name.EndsWith(GateUp, StringComparison.Ordinal) && IsStack(entry, config) && entry.Shape[1] % 2 == 0)
        {
            string stem = entry.Name[..^"gate_up_proj".Length];
            return Unstack(entry).SelectMany((stack, expert) => Halves(stack, $"{stem}{expert}.gate_proj.weight", $"{stem}{expert}.up_proj.weight"));
        }

        if (entry.Name.EndsWith(Down, StringComparison.Ordinal) && IsStack(entry, config))
        {
            string stem = entry.Name[..^"down_proj".Length];
            return Unstack(entry).Select((stack, expert) => stack with { Name = $"{stem}{expert}.down_proj.weight" });
        }

        const string Switch = ".mlp.switch_mlp.";
        int at = entry.Name.IndexOf(Switch, StringComparison.Ordinal);
        if (at >= 0 && IsStack(entry, config)) return Unstack(entry).Select((stack, expert) => stack with { Name = $"{entry.Name[..at]}.mlp.experts.{expert}.{entry.Name[(at + Switch.Length)..]}" });
        return [entry];
    }

    // The configured count bounds the work: a file cannot make us list a billion experts.
    private static bool IsStack(TensorEntry entry, Qwen2Config config) => entry.Shape.Rank == 3 && entry.Shape[0] == config.NumExperts;

    private static IEnumerable<TensorEntry> Unstack(TensorEntry entry)
    {
        for (long expert = 0; expert < entry.Shape[0]; expert++) yield return entry.Slice(entry.Name, expert);
    }

    private static TensorEntry[] Halves(TensorEntry entry, string first, string second)
    {
        long half = entry.Shape[0] / 2;
        return [entry.Rows(first, 0, half), entry.Rows(second, half, half)];
    }

    private static bool HaveEqualValues(ITensorSource source, TensorEntry a, TensorEntry b)
    {
        const int ChunkValues = 1 << 18;
        if (!a.Shape.Equals(b.Shape)) return false;
        int rowLength = checked((int)a.Shape.RowLength);
        int rowsPerChunk = Math.Max(ChunkValues / Math.Max(rowLength, 1), 1);
        float[] left = new float[rowsPerChunk * rowLength];
        float[] right = new float[left.Length];
        for (long row = 0; row < a.Shape.RowCount; row += rowsPerChunk)
        {
            int rows = (int)Math.Min(rowsPerChunk, a.Shape.RowCount - row);
            source.ReadRows(a, row, rows, left);
            source.ReadRows(b, row, rows, right);
            if (!left.AsSpan(0, rows * rowLength).SequenceEqual(right.AsSpan(0, rows * rowLength))) return false;
        }

        return true;
    }
}
