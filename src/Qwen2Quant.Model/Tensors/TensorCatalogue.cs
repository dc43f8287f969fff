using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Model;

/// <summary>The exact set of tensors of a configuration, in the order of the model: embedding, layers, norm, output.</summary>
public sealed class TensorCatalogue
{
    // Enough to see what is wrong; a file with the wrong names would otherwise fill the screen.
    private const int ProblemsShown = 40;

    private readonly Dictionary<string, CanonicalTensor> _byName;

    private TensorCatalogue(Qwen2Config config, List<CanonicalTensor> tensors)
    {
        Config = config;
        Tensors = tensors;
        _byName = tensors.ToDictionary(tensor => tensor.Name, StringComparer.Ordinal);
        ParameterCount = tensors.Sum(tensor => tensor.Shape.ValueCount);
    }

    public Qwen2Config Config { get; }
    public IReadOnlyList<CanonicalTensor> Tensors { get; }

    /// <summary>Values of all tensors; a tied embedding counts once.</summary>
    public long ParameterCount { get; }

    public CanonicalTensor? Find(string name) => _byName.GetValueOrDefault(name);

    /// <param name="config">Validated: its shapes do not overflow.</param>
    public static TensorCatalogue For(Qwen2Config config)
    {
        List<CanonicalTensor> tensors = [new("model.embed_tokens.weight", new Shape(config.VocabSize, config.HiddenSize), TensorRole.TokenEmbedding, -1, -1)];
        for (int layer = 0; layer < config.NumHiddenLayers; layer++) AddLayer(tensors, config, layer);
        tensors.Add(new("model.norm.weight", new Shape(config.HiddenSize), TensorRole.OutputNorm, -1, -1));
        if (!config.TieWordEmbeddings) tensors.Add(new("lm_head.weight", new Shape(config.VocabSize, config.HiddenSize), TensorRole.Output, -1, -1));
        return new TensorCatalogue(config, tensors);
    }

    /// <summary>Names that older exports carry and that no forward pass reads: rotary and mask buffers.</summary>
    public static bool IsSkipped(string name) =>
        name.EndsWith(".rotary_emb.inv_freq", StringComparison.Ordinal) || name.EndsWith(".attention.bias", StringComparison.Ordinal)
        || name.EndsWith(".attention.masked_bias", StringComparison.Ordinal);

    /// <summary>Compares canonical names and shapes with the catalogue; buffers that are skipped may be there, and a tied model's <c>lm_head.weight</c> (see <see cref="CheckTie"/>).</summary>
    /// <param name="path">Shown in errors.</param>
    /// <exception cref="QuantException">HF-73, listing everything that is missing, surplus or mis-shaped.</exception>
    public void Check(IEnumerable<(string Name, Shape Shape)> found, string path)
    {
        Dictionary<string, Shape> byName = new(StringComparer.Ordinal);
        List<string> problems = [];
        foreach ((string name, Shape shape) in found)
        {
            if (IsSkipped(name)) continue;
            if (!byName.TryAdd(name, shape)) problems.Add($"twice: {name}");
        }

        List<string> surplus = [.. byName.Keys.Where(name => !_byName.ContainsKey(name) && !(Config.TieWordEmbeddings && name == "lm_head.weight"))];
        surplus.Sort(StringComparer.Ordinal);
        NearestName near = new(surplus);
        foreach (CanonicalTensor tensor in Tensors)
        {
            if (!byName.TryGetValue(tensor.Name, out Shape? shape))
            {
                string? suggestion = problems.Count < ProblemsShown ? near.Find(tensor.Name) : null;
                problems.Add($"missing: {tensor.Name}" + (suggestion is null ? "" : $" (is it '{suggestion}'?)"));
            }
            else if (!shape.Equals(tensor.Shape))
            {
                bool transposed = shape.Rank == 2 && tensor.Shape.Rank == 2 && shape[0] == tensor.Shape[1] && shape[1] == tensor.Shape[0];
                problems.Add($"shape: {tensor.Name} is {shape} instead of {tensor.Shape}" + (transposed ? " (transposed)" : ""));
            }
        }

        problems.AddRange(surplus.Select(name => $"surplus: {name}"));
        if (problems.Count == 0) return;
        string more = problems.Count > ProblemsShown ? string.Create(CultureInfo.InvariantCulture, $"\n  and {problems.Count - ProblemsShown} more") : "";
        string list = string.Concat(problems.Take(ProblemsShown).Select(problem => $"\n  {TextEscape.Escape(problem)}"));
        throw new QuantException(ErrorKind.InvalidInput, $"{problems.Count} of its tensors do not fit the configuration{list}{more}\n ")
        {
            Rule = ModelRules.TensorSet, Path = path, Expected = $"the {Tensors.Count} tensors of {Config.Architecture}",
        };
    }

    /// <summary>Holds <c>tie_word_embeddings</c> against the file.</summary>
    /// <param name="hasOutput">The file has an output matrix.</param>
    /// <param name="outputEqualsEmbedding">Compares both; asked only for a tied model with an output matrix.</param>
    /// <param name="path">Shown in errors.</param>
    /// <exception cref="QuantException">HF-72.</exception>
    public void CheckTie(bool hasOutput, Func<bool> outputEqualsEmbedding, string path)
    {
        if (!Config.TieWordEmbeddings && !hasOutput)
        {
            throw new QuantException(ErrorKind.InvalidInput, "tie_word_embeddings is false and there is no output matrix")
            {
                Rule = ModelRules.Tie, Path = path, Tensor = "lm_head.weight", Remedy = "Set tie_word_embeddings to true if the model shares its embedding.",
            };
        }

        if (Config.TieWordEmbeddings && hasOutput && !outputEqualsEmbedding())
        {
            throw new QuantException(ErrorKind.InvalidInput, "tie_word_embeddings is true and the output matrix differs from the embedding")
            {
                Rule = ModelRules.Tie, Path = path, Tensor = "lm_head.weight", Remedy = "Set tie_word_embeddings to false if the model has an output matrix of its own.",
            };
        }
    }

    private static void AddLayer(List<CanonicalTensor> tensors, Qwen2Config config, int layer)
    {
        int hidden = config.HiddenSize;
        string prefix = string.Create(CultureInfo.InvariantCulture, $"model.layers.{layer}.");
        Add("input_layernorm.weight", TensorRole.AttentionNorm, -1, hidden);
        AddProjection("q", TensorRole.AttentionQ, TensorRole.AttentionQBias, config.QueryWidth);
        AddProjection("k", TensorRole.AttentionK, TensorRole.AttentionKBias, config.KeyValueWidth);
        AddProjection("v", TensorRole.AttentionV, TensorRole.AttentionVBias, config.KeyValueWidth);
        Add("self_attn.o_proj.weight", TensorRole.AttentionO, -1, hidden, config.QueryWidth);
        Add("post_attention_layernorm.weight", TensorRole.FfnNorm, -1, hidden);
        if (!config.IsSparse(layer))
        {
            AddFeedForward("mlp.", TensorRole.FfnGate, TensorRole.FfnUp, TensorRole.FfnDown, config.IntermediateSize, -1);
            return;
        }

        Add("mlp.gate.weight", TensorRole.Router, -1, config.NumExperts, hidden);
        for (int expert = 0; expert < config.NumExperts; expert++)
        {
            string experts = string.Create(CultureInfo.InvariantCulture, $"mlp.experts.{expert}.");
            AddFeedForward(experts, TensorRole.ExpertGate, TensorRole.ExpertUp, TensorRole.ExpertDown, config.MoeIntermediateSize, expert);
        }

        AddFeedForward("mlp.shared_expert.", TensorRole.SharedFfnGate, TensorRole.SharedFfnUp, TensorRole.SharedFfnDown, config.SharedExpertIntermediateSize, -1);
        Add("mlp.shared_expert_gate.weight", TensorRole.SharedExpertGate, -1, 1, hidden);

        void AddProjection(string letter, TensorRole weight, TensorRole bias, int width)
        {
            Add($"self_attn.{letter}_proj.weight", weight, -1, width, hidden);
            if (config.QkvBias) Add($"self_attn.{letter}_proj.bias", bias, -1, width);
        }

        void AddFeedForward(string inner, TensorRole gate, TensorRole up, TensorRole down, int width, int expert)
        {
            Add($"{inner}gate_proj.weight", gate, expert, width, hidden);
            Add($"{inner}up_proj.weight", up, expert, width, hidden);
            Add($"{inner}down_proj.weight", down, expert, hidden, width);
        }

        void Add(string name, TensorRole role, int expert, params ReadOnlySpan<long> dimensions) =>
            tensors.Add(new CanonicalTensor(prefix + name, new Shape(dimensions), role, layer, expert));
    }
}
