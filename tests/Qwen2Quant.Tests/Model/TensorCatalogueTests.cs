using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

public class TensorCatalogueTests
{
    private static readonly Qwen2Config Small = new() { VocabSize = 50, HiddenSize = 16, IntermediateSize = 24, NumHiddenLayers = 2, NumAttentionHeads = 2, NumKeyValueHeads = 1, HeadDim = 8 };

    // Published configurations: parameters, values in the linears of layers (0 where not published), tensors of the GGUF.
    [Theory]
    [InlineData(896, 4864, 24, 14, 2, 151936, true, 494_032_768, 357_826_560, 290)]
    [InlineData(1536, 8960, 28, 12, 2, 151936, true, 1_543_714_304, 1_310_195_712, 338)]
    [InlineData(2048, 11008, 36, 16, 2, 151936, true, 3_085_938_688, 0, 434)]
    [InlineData(3584, 18944, 28, 28, 4, 152064, false, 7_615_616_512, 6_525_288_448, 339)]
    [InlineData(5120, 13824, 48, 40, 8, 152064, false, 14_770_033_664, 0, 579)]
    [InlineData(5120, 27648, 64, 40, 8, 152064, false, 32_763_876_352, 0, 771)]
    [InlineData(8192, 29568, 80, 64, 8, 152064, false, 72_706_203_648, 70_212_648_960, 963)]
    public void DenseCountsAreThePublishedOnes(int hidden, int width, int layers, int heads, int keyHeads, int vocabulary, bool tied, long parameters, long linears, int tensors)
    {
        TensorCatalogue catalogue = TensorCatalogue.For(new Qwen2Config
        {
            HiddenSize = hidden, IntermediateSize = width, NumHiddenLayers = layers, NumAttentionHeads = heads, NumKeyValueHeads = keyHeads,
            HeadDim = hidden / heads, VocabSize = vocabulary, TieWordEmbeddings = tied,
        });
        Check(catalogue, parameters, linears, tensors);
        Assert.Equal(tensors, catalogue.Tensors.Count);
    }

    [Theory]
    [InlineData(3584, 28, 28, 4, 64, 2560, 20480, 57_408_658_944, 56_312_725_504, 479)]
    [InlineData(2048, 24, 16, 16, 60, 1408, 5632, 14_315_784_192, 0, 411)]
    public void MixedCountsAreThePublishedOnes(int hidden, int layers, int heads, int keyHeads, int experts, int width, int shared, long parameters, long linears, int tensors) =>
        Check(
            TensorCatalogue.For(new Qwen2Config
            {
                IsMoe = true, HiddenSize = hidden, NumHiddenLayers = layers, NumAttentionHeads = heads, NumKeyValueHeads = keyHeads, HeadDim = hidden / heads,
                VocabSize = 151936, NumExperts = experts, MoeIntermediateSize = width, SharedExpertIntermediateSize = shared,
            }),
            parameters, linears, tensors);

    [Fact]
    public void CheckListsEverythingAtOnceWithTheNearestNames()
    {
        TensorCatalogue catalogue = TensorCatalogue.For(Small);
        IEnumerable<(string, Shape)> found = catalogue.Tensors.Where(tensor => !tensor.Name.EndsWith("0.self_attn.q_proj.bias", StringComparison.Ordinal))
            .Select(tensor => tensor.Role == TensorRole.FfnDown && tensor.Layer == 1 ? (tensor.Name, new Shape(24, 16)) : (tensor.Name, tensor.Shape))
            .Append(("model.layers.0.self_attn.q_proj.bais", new Shape(16))).Append(("extra", new Shape(1)));
        QuantException error = Assert.Throws<QuantException>(() => catalogue.Check(found, "model.safetensors"));
        Assert.Equal(ModelRules.TensorSet, error.Rule);
        Assert.Contains("4 of its tensors", error.Message);
        Assert.Contains("missing: model.layers.0.self_attn.q_proj.bias (is it 'model.layers.0.self_attn.q_proj.bais'?)", error.Message);
        Assert.Contains("shape: model.layers.1.mlp.down_proj.weight is [24, 16] instead of [16, 24] (transposed)", error.Message);
        Assert.Contains("surplus: extra", error.Message);
    }

    [Fact]
    public void HostileNamesCostAndPrintLittle()
    {
        TensorCatalogue catalogue = TensorCatalogue.For(Small with { NumHiddenLayers = 300 });
        string stem = "model.layers.0.self_attn.q_proj.weigh";
        IEnumerable<(string, Shape)> found = Enumerable.Range(0, 50_000).Select(i => ($"{stem}{(char)(0x4e00 + (i % 20_000))}{i / 20_000}", new Shape(1)))
            .Append((new string('x', 100_000), new Shape(1))).Append(("\u001b[31mred", new Shape(1)));
        System.Diagnostics.Stopwatch watch = System.Diagnostics.Stopwatch.StartNew();
        string message = Assert.Throws<QuantException>(() => catalogue.Check(found, "x")).Message;
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 20);
        Assert.InRange(message.Length, 100, 20_000);
        Assert.DoesNotContain('\u001b', message);
        Assert.Contains("more", message);
    }

    [Theory]
    [InlineData("", "abc", 3)]
    [InlineData("kitten", "sitting", 3)]
    [InlineData("weight", "weight", 0)]
    [InlineData("bias", "bais", 2)]
    public void DistanceIsLevenshteins(string a, string b, int distance)
    {
        Assert.Equal(distance, NearestName.Distance(a, b));
        Assert.Equal(distance, NearestName.Distance(b, a));
    }

    private static void Check(TensorCatalogue catalogue, long parameters, long linears, int tensors)
    {
        Assert.Equal(parameters, catalogue.ParameterCount);
        if (linears > 0) Assert.Equal(linears, catalogue.Tensors.Where(tensor => tensor.Role.IsLayerLinear()).Sum(tensor => tensor.Shape.ValueCount));
        IReadOnlyList<GgufTensor> plan = GgufNames.Plan(catalogue);
        Assert.Equal(tensors, plan.Count);
        Assert.Equal(parameters, plan.Sum(tensor => tensor.Shape.ValueCount));
    }
}
