using System.Text;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

public sealed class RecipeTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("8", 24, "8")]
    [InlineData("..2", 24, "0 1")]
    [InlineData("22..", 24, "22 23")]
    [InlineData("..1/8", 28, "0 1 2")]
    [InlineData("1/8..1/4", 28, "3 4 5 6")]
    [InlineData("..1/8, 7/8..", 24, "0 1 2 21 22 23")]
    [InlineData("..1/16", 15, "")]
    [InlineData("more", 24, "0 1 2 5 8 11 14 17 20 21 22 23")]
    [InlineData("more", 28, "0 1 2 5 8 11 14 17 20 23 24 25 26 27")]
    [InlineData("1, more", 3, "1 2")]
    public void RangesHoldTheirNumbers(string text, int layers, string expected) =>
        Assert.Equal(expected, string.Join(' ', Enumerable.Range(0, layers).Where(layer => NumberRange.TryParse(text)!.Contains(layer, layers))));

    [Theory]
    [InlineData("")]
    [InlineData("..")]
    [InlineData("a")]
    [InlineData("-1")]
    [InlineData("1/0..")]
    [InlineData("1/8")]
    [InlineData("1..2..3")]
    [InlineData("..1/2/3")]
    [InlineData("1,")]
    [InlineData("2147483648")]
    [InlineData("More")]
    public void OtherTextsAreNoRanges(string text) => Assert.Null(NumberRange.TryParse(text));

    [Fact]
    public void EveryRecipeIsReadAsItIsPrinted()
    {
        foreach (Recipe recipe in RecipeBook.BuiltIn.Recipes)
        {
            Recipe read = Load(recipe.ToJson());
            Assert.Equal(recipe.ToJson(), read.ToJson());
            foreach (string shape in new[] { "0.5B", "tiny-qwen2moe" })
            {
                Assert.Equal(PublishedShapes.Plan(PublishedShapes.All[shape], recipe), PublishedShapes.Plan(PublishedShapes.All[shape], read));
            }
        }
    }

    [Fact]
    public void ARecipeMayUseEveryCondition()
    {
        Recipe recipe = Load("""
            { "name": "mine", "type": "Q4_K", "rules": [
              { "tensors": ["attn_v", "attn_k"], "layers": "..1/8, more", "gqa": "4..", "experts": "0", "layer_count": "20..30", "imatrix": false, "stacked": false, "replaces": ["Q4_K"], "type": "Q6_K" },
              { "tensors": "ffn_down", "place": "1..", "type": "q5_K", "fallback": "Q8_0" } ] }
            """);
        Dictionary<string, string> types = PublishedShapes.Plan(PublishedShapes.All["0.5B"], recipe).ToDictionary(tensor => tensor.Name, tensor => tensor.Type.Name);
        Assert.Equal(("Q8_0", "Q5_0", "Q4_K", "Q5_K"), (types["blk.5.attn_k.weight"], types["blk.6.attn_k.weight"], types["blk.0.ffn_down.weight"], types["blk.1.ffn_down.weight"]));
        Assert.Null(recipe.FileType);
    }

    [Theory]
    [InlineData("[]", "the recipe", "an object")]
    [InlineData("{\"type\": \"Q8_0\"}", "the recipe", "no name")]
    [InlineData("{\"name\": \"x\", \"typ\": \"Q8_0\"}", "\"typ\"", "needs_imatrix")]
    [InlineData("{\"name\": \"x\", \"type\": \"Q9_9\"}", "Q9_9", "types")]
    [InlineData("{\"name\": \"x\", \"type\": 8}", "type", "a text")]
    [InlineData("{\"name\": \"x\", \"name\": \"y\"}", "not JSON", "twice")]
    [InlineData("{\"name\": \"x\", \"file_type\": -1}", "file_type", "a whole number")]
    [InlineData("{\"name\": \"x\", \"needs_imatrix\": 1}", "needs_imatrix", "true or false")]
    [InlineData("{\"name\": \"x\", \"rules\": [{\"tensors\": \"attn_v\"}]}", "rules[0]", "no type")]
    [InlineData("{\"name\": \"x\", \"rules\": [{\"type\": \"F16\"}, {\"type\": \"F16\", \"tensors\": \"attn_w\"}]}", "rules[1].tensors", "attn_v")]
    [InlineData("{\"name\": \"x\", \"rules\": [{\"type\": \"F16\", \"layer\": \"1\"}]}", "\"layer\"", "layer_count")]
    [InlineData("{\"name\": \"x\", \"rules\": [{\"type\": \"F16\", \"layers\": \"1-2\"}]}", "\"1-2\"", "1/8..7/8")]
    [InlineData("{\"name\": \"x\", \"rules\": [{\"type\": \"F16\", \"replaces\": [\"Q4\"]}]}", "rules[0].replaces", "\"Q4\"")]
    [InlineData("{\"name\": \"x\"} x", "not JSON", "x")]
    [InlineData("{\"name\": \"x\",}", "not JSON", "at byte")]
    public void BadRecipesAreUsageErrorsThatSayWhere(string json, params string[] named)
    {
        QuantException error = Assert.Throws<QuantException>(() => Load(json));
        Assert.Equal(ErrorKind.Usage, error.Kind);
        Assert.All(named, text => Assert.Contains(text, error.Message, StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("no-equals-sign")]
    [InlineData("=Q8_0")]
    [InlineData("attn_(=Q8_0")]
    [InlineData("attn_v=Q9_9")]
    public void BadOverridesAreUsageErrors(string text) => Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => TensorTypeOverride.Parse(text)).Kind);

    [Fact]
    public void FallbacksAreSmallerBlocksAndEveryRecipeHasItsOwnName()
    {
        RecipeBook book = RecipeBook.BuiltIn;
        Assert.Equal(16, book.Fallbacks.Count);
        Assert.All(book.Fallbacks, pair => Assert.True(pair.Key.ValuesPerBlock > pair.Value.ValuesPerBlock));
        string[] names = [.. book.Recipes.SelectMany(recipe => recipe.Aliases.Prepend(recipe.Name))];
        Assert.Equal(names.Length, names.Distinct(StringComparer.OrdinalIgnoreCase).Count());
    }

    [Fact]
    public void FallbacksAreToldAndTheLastResortIsHalf()
    {
        List<QuantEvent> events = [];
        Dictionary<string, string> types = PublishedShapes.Plan(TestCheckpoint.Odd, PublishedShapes.Find("Q4_K_S"), events: events).ToDictionary(tensor => tensor.Name, tensor => tensor.Type.Name);
        Assert.Equal("F16", types["blk.0.ffn_up.weight"]);
        Assert.Equal(types.Values.Count(type => type == "F16"), events.Count(planned => planned is { Code: "type-fallback", IsSubstitution: true }));
    }

    [Theory]
    [InlineData("Q4_0")]
    [InlineData("IQ4_NL")]
    [InlineData("Q8_0")]
    [InlineData("MXFP4_MOE")]
    public void RowsWithoutAFallbackAreRefused(string preset)
    {
        QuantException error = Assert.Throws<QuantException>(() => PublishedShapes.Plan(TestCheckpoint.Odd, PublishedShapes.Find(preset)));
        Assert.Equal(ErrorKind.Usage, error.Kind);
        Assert.Contains("--tensor-type", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void TypesThatAnOptionNamesAreTakenOrRefused()
    {
        QuantException error = Refuse(new RecipeOptions { EmbeddingType = Type("Q6_K") });
        Assert.Contains("--embedding-type Q8_0", error.Message, StringComparison.Ordinal);
        Assert.Contains("--output-type Q5_0", Refuse(new RecipeOptions { OutputType = Type("Q4_K") }).Message, StringComparison.Ordinal);
        Assert.Equal("Q8_0", TypeOf("0.5B", "token_embd.weight", new RecipeOptions { OutputType = Type("Q8_0") }));
        Assert.Equal("F16", TypeOf("0.5B", "token_embd.weight", new RecipeOptions { OutputType = Type("Q8_0"), EmbeddingType = Type("F16") }));
        Assert.Equal("Q4_K", TypeOf("7B", "token_embd.weight", new RecipeOptions { OutputType = Type("Q8_0") }));
        Assert.Equal("Q8_0", TypeOf("7B", "output.weight", new RecipeOptions { OutputType = Type("Q8_0"), Pure = true }));
        Assert.Equal("Q4_K", TypeOf("7B", "output.weight", new RecipeOptions { Pure = true }));
        Assert.Equal("F32", TypeOf("7B", "output.weight", new RecipeOptions { LeaveOutputTensor = true }));
        Assert.Equal("Q5_0", TypeOf("0.5B", "blk.3.attn_q.weight", new RecipeOptions { Pure = true, TensorTypes = [TensorTypeOverride.Parse("ATTN_Q=Q4_K")] }));

        static QuantException Refuse(RecipeOptions options) => Assert.Throws<QuantException>(() => TypeOf("0.5B", "output.weight", options));
    }

    /// <summary>llama-quantize shifts the mixture of all later layers here; this program counts layers by name.</summary>
    [Fact]
    public void AnOptionForOneTensorChangesNoOther()
    {
        Recipe recipe = PublishedShapes.Find("Q4_K_M");
        RecipeOptions options = new() { TensorTypes = [TensorTypeOverride.Parse(@"blk\.0\.attn_v=Q8_0")] };
        IEnumerable<OutputTensor> plain = PublishedShapes.Plan(PublishedShapes.All["7B"], recipe), changed = PublishedShapes.Plan(PublishedShapes.All["7B"], recipe, options: options);
        Assert.Equal(["blk.0.attn_v.weight"], plain.Zip(changed).Where(pair => pair.First != pair.Second).Select(pair => pair.First.Name));
    }

    private static string TypeOf(string shape, string tensor, RecipeOptions options) =>
        PublishedShapes.Plan(PublishedShapes.All[shape], PublishedShapes.Find("Q4_K_M"), options: options).Single(planned => planned.Name == tensor).Type.Name;

    private static ElementType Type(string name) => RecipeOptions.FindType(name, "test");

    private Recipe Load(string json) => RecipeBook.Load(DiskFileLayer.Instance, _folder.Write("recipe.json", Encoding.UTF8.GetBytes(json)), Limits.Default.JsonFileBytes);
}
