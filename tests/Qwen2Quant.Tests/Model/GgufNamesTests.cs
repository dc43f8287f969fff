using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

public class GgufNamesTests
{
    private static readonly Qwen2Config Dense = new() { VocabSize = 50, HiddenSize = 16, IntermediateSize = 24, NumHiddenLayers = 11, NumAttentionHeads = 2, NumKeyValueHeads = 1, HeadDim = 8 };
    private static readonly Qwen2Config Mixed = Dense with { IsMoe = true, NumHiddenLayers = 2, NumExperts = 3, NumExpertsPerTok = 2, MoeIntermediateSize = 6, SharedExpertIntermediateSize = 10 };

    [Fact]
    public void EveryCanonicalNameGoesThereAndBack()
    {
        foreach (CanonicalTensor tensor in TensorCatalogue.For(Mixed with { MlpOnlyLayers = [1] }).Tensors)
        {
            (string name, int? expert) = Assert.NotNull(GgufNames.FromHuggingFace(tensor.Name));
            Assert.Equal(tensor.Name, GgufNames.ToHuggingFace(name, expert));
            Assert.Equal(tensor.Expert, expert ?? -1);
        }
    }

    [Theory]
    [InlineData("model.layers.7.self_attn.o_proj.weight", "blk.7.attn_output.weight", null)]
    [InlineData("model.layers.10.post_attention_layernorm.weight", "blk.10.ffn_norm.weight", null)]
    [InlineData("model.layers.0.mlp.experts.63.down_proj.weight", "blk.0.ffn_down_exps.weight", 63)]
    [InlineData("model.layers.0.mlp.shared_expert_gate.weight", "blk.0.ffn_gate_inp_shexp.weight", null)]
    public void NamesAreGgmls(string huggingFace, string gguf, int? expert) => Assert.Equal((gguf, expert), GgufNames.FromHuggingFace(huggingFace));

    [Theory]
    [InlineData("model.layers.01.mlp.gate.weight")]
    [InlineData("model.layers..mlp.gate.weight")]
    [InlineData("model.layers.-1.mlp.gate.weight")]
    [InlineData("model.layers.1.self_attn.q_norm.weight")]
    [InlineData("model.layers.99999999999.mlp.gate.weight")]
    [InlineData("model.layers.1.mlp.experts.x.up_proj.weight")]
    [InlineData("blk.0.attn_q.weight")]
    [InlineData("")]
    public void OtherNamesHaveNone(string name) => Assert.Null(GgufNames.FromHuggingFace(name));

    [Fact]
    public void StacksNeedAnExpertAndOthersHaveNone()
    {
        Assert.Null(GgufNames.ToHuggingFace("blk.0.ffn_up_exps.weight"));
        Assert.Null(GgufNames.ToHuggingFace("blk.0.ffn_up.weight", 0));
        Assert.Null(GgufNames.ToHuggingFace("output.weight", 0));
    }

    [Fact]
    public void PlanIsInTheOrderOfLlamaQuantize()
    {
        IReadOnlyList<GgufTensor> plan = GgufNames.Plan(TensorCatalogue.For(Dense));
        string[] block = ["attn_k.bias", "attn_k.weight", "attn_norm.weight", "attn_output.weight", "attn_q.bias", "attn_q.weight", "attn_v.bias", "attn_v.weight", "ffn_down.weight", "ffn_gate.weight", "ffn_norm.weight", "ffn_up.weight"];
        string[] expected = ["output.weight", "output_norm.weight", "token_embd.weight", .. Enumerable.Range(0, 11).SelectMany(layer => block.Select(name => $"blk.{layer}.{name}"))];
        Assert.Equal(expected, plan.Select(tensor => tensor.Name));
        Assert.All(plan, tensor => Assert.Equal(tensor.Name.EndsWith(".bias", StringComparison.Ordinal) || tensor.Name.EndsWith("_norm.weight", StringComparison.Ordinal), tensor.IsKeptF32));
    }

    [Fact]
    public void ExpertsAreStackedInOrder()
    {
        GgufTensor[] plan = [.. GgufNames.Plan(TensorCatalogue.For(Mixed)).Where(tensor => tensor.Name.StartsWith("blk.1.ffn", StringComparison.Ordinal))];
        Assert.Equal(
            ["ffn_down_exps [3, 16, 6]", "ffn_down_shexp [16, 10]", "ffn_gate_exps [3, 6, 16]", "ffn_gate_inp [3, 16] F32", "ffn_gate_inp_shexp [16] F32", "ffn_gate_shexp [10, 16]", "ffn_norm [16] F32", "ffn_up_exps [3, 6, 16]", "ffn_up_shexp [10, 16]"],
            plan.Select(tensor => $"{tensor.Name["blk.1.".Length..^".weight".Length]} {tensor.Shape}{(tensor.IsKeptF32 ? " F32" : "")}"));
        Assert.Equal(
            ["model.layers.1.mlp.experts.0.up_proj.weight", "model.layers.1.mlp.experts.1.up_proj.weight", "model.layers.1.mlp.experts.2.up_proj.weight"],
            plan.Single(tensor => tensor.Name == "blk.1.ffn_up_exps.weight").Parts.Select(part => part.Name));
    }

    [Theory]
    [InlineData("gguf")]
    [InlineData("gguf fused")]
    [InlineData("fused")]
    [InlineData("mlx")]
    [InlineData("plain")]
    public void ViewsOfAllSpellingsHoldTheSameValues(string spelling)
    {
        TensorCatalogue catalogue = TensorCatalogue.For(Mixed);
        MemorySource canonical = MemorySource.Random(Mixed, 9);
        using CanonicalView view = CanonicalView.Over(Respell(canonical, catalogue, spelling), catalogue, "x");
        Assert.Equal(catalogue.Tensors.Count, view.Tensors.Count);
        foreach (CanonicalTensor tensor in catalogue.Tensors)
        {
            TensorEntry entry = view.Find(tensor.Name)!;
            Assert.Equal(tensor.Shape, entry.Shape);
            Assert.Equal(canonical.ReadAll(canonical.Find(tensor.Name)!), view.ReadAll(entry));
        }

        Assert.Null(view.Find("blk.0.attn_q.weight"));
    }

    private static MemorySource Respell(MemorySource source, TensorCatalogue catalogue, string spelling)
    {
        List<(string, Shape, float[])> tensors = [];
        foreach (GgufTensor tensor in GgufNames.Plan(catalogue))
        {
            float[] values = [.. tensor.Parts.SelectMany(part => source.ReadAll(source.Find(part.Name)!))];
            bool isStack = tensor.Parts.Count > 1;
            bool isGate = isStack && tensor.Name.Contains("ffn_gate_exps", StringComparison.Ordinal);
            if (spelling == "mlx" && isStack)
            {
                tensors.Add((tensor.Parts[0].Name.Replace("experts.0.", "switch_mlp.", StringComparison.Ordinal), tensor.Shape, values));
            }
            else if (spelling == "plain" || (spelling is "fused" or "mlx" && !isStack))
            {
                tensors.AddRange(tensor.Parts.Select(part => (part.Name, part.Shape, source.ReadAll(source.Find(part.Name)!))));
            }
            else if (spelling == "gguf" || !isStack)
            {
                tensors.Add((tensor.Name, tensor.Shape, values));
            }
            else if (isGate)
            {
                float[] both = [.. tensor.Parts.SelectMany(part => source.ReadAll(source.Find(part.Name)!).Concat(source.ReadAll(source.Find(part.Name.Replace("gate_proj", "up_proj"))!)))];
                string name = spelling == "fused" ? $"model.layers.{tensor.Parts[0].Layer}.mlp.experts.gate_up_proj" : tensor.Name.Replace("gate", "gate_up");
                tensors.Add((name, new Shape(3, 12, 16), both));
            }
            else if (tensor.Name.Contains("down", StringComparison.Ordinal))
            {
                tensors.Add((spelling == "fused" ? $"model.layers.{tensor.Parts[0].Layer}.mlp.experts.down_proj" : tensor.Name, tensor.Shape, values));
            }
        }

        return MemorySource.Of(tensors);
    }
}
