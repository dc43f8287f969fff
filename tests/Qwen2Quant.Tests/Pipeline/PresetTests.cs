using System.Text.Json;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Recipes;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Every preset gives every tensor llama-quantize's type.</summary>
public sealed class PresetTests
{
    /// <summary>Bytes of tensor data by preset and published shape, computed from published files and configurations.</summary>
    [Fact]
    public void TotalsAreThoseOfPublishedFiles()
    {
        string[][] table = [.. File.ReadAllLines(DataPath("preset-totals.txt")).Select(line => line.Split(' '))];
        Assert.Equal(9, table[0].Length - 1);
        foreach (string[] row in table.Skip(1))
        {
            for (int column = 1; column < row.Length; column++) AssertTotal(table[0][column], row[0], long.Parse(row[column]));
        }
    }

    [Theory]
    [InlineData("IQ4_XS", 4212518912)]
    [InlineData("Q4_0", 4438167552)]
    [InlineData("Q5_0", 5321953280)]
    [InlineData("IQ3_XXS", 3108560896)]
    [InlineData("IQ3_XS", 3340302336)]
    [InlineData("IQ3_S", 3493238784)]
    [InlineData("IQ3_M", 3568058368)]
    [InlineData("IQ2_M", 2774388736)]
    [InlineData("Q2_K_S", 2828120064)]
    public void TotalsWithAnImatrixAreThoseOfPublishedFiles(string preset, long bytes) => AssertTotal("7B", preset, bytes, hasImatrix: true);

    /// <summary>Types and totals that llama-quantize chose for models at hand; null where it refused without an importance matrix.</summary>
    [Fact]
    public void TypesAreThoseThatLlamaCppChose()
    {
        using JsonDocument golden = JsonDocument.Parse(File.ReadAllBytes(DataPath("preset-types.json")));
        int compared = 0;
        foreach (JsonProperty model in golden.RootElement.EnumerateObject())
        {
            string[] names = model.Value.GetProperty("tensors").GetString()!.Split(' ');
            foreach (JsonProperty preset in model.Value.GetProperty("presets").EnumerateObject())
            {
                Recipe recipe = PublishedShapes.Find(preset.Name);
                Dictionary<string, OutputTensor> planned = PublishedShapes.Plan(PublishedShapes.All[model.Name], recipe).ToDictionary(tensor => tensor.Name);
                bool needsImatrix = recipe.NeedsImatrix || planned.Values.Any(tensor => RecipeBook.BuiltIn.NeedsImatrix(tensor.Name, tensor.Type));
                Assert.True(needsImatrix == (preset.Value.ValueKind == JsonValueKind.Null), $"{model.Name} {preset.Name}");
                if (needsImatrix) continue;

                Assert.Equal(preset.Value.GetProperty("file_type").GetInt32(), recipe.FileType);
                string[] types = [.. preset.Value.GetProperty("types").GetString()!.Split(' ').SelectMany(Repeat)];
                Assert.Equal(names.Length, types.Length);
                foreach ((string name, string type) in names.Zip(types))
                {
                    Assert.True(type == planned[name].Type.Name, $"{model.Name} {preset.Name} {name}: {planned[name].Type} instead of {type}");
                    compared++;
                }

                Assert.Equal(preset.Value.GetProperty("bytes").GetInt64(), planned.Values.Sum(tensor => tensor.ByteLength));
            }
        }

        Assert.True(compared > 4000);
    }

    [Fact]
    public void FileTypesAreLlamaCpps()
    {
        string expected = "F32 0,F16 1,BF16 32,Q8_0 7,Q6_K 18,Q5_K_M 17,Q5_K_S 16,Q5_1 9,Q5_0 8,Q4_K_M 15,Q4_K_S 14,Q4_1 3,Q4_0 2,IQ4_NL 25,IQ4_XS 30,Q3_K_L 13,Q3_K_M 12,Q3_K_S 11,"
            + "IQ3_M 27,IQ3_S 26,IQ3_XS 22,IQ3_XXS 23,Q2_K 10,Q2_K_S 21,IQ2_M 29,IQ2_S 28,IQ2_XS 20,IQ2_XXS 19,IQ1_M 31,IQ1_S 24,TQ2_0 37,TQ1_0 36,MXFP4_MOE 38,NVFP4 39,Q2_0 41,Q1_0 40";
        foreach (string[] pair in expected.Split(',').Select(text => text.Split(' ')))
        {
            Assert.Equal(int.Parse(pair[1]), PublishedShapes.Find(pair[0]).FileType);
            Assert.Equal(pair[0], PublishedShapes.Find(pair[1]).Name);
            Assert.Equal(pair[0], PublishedShapes.Find(pair[0].ToLowerInvariant()).Name);
        }

        Assert.Equal("Q3_K_M", PublishedShapes.Find("Q3_K").Name);
        Assert.Equal("Q4_K_M", PublishedShapes.Find("q4_k").Name);
        Assert.Equal("Q5_K_M", PublishedShapes.Find("Q5_K").Name);
        Assert.Null(RecipeBook.BuiltIn.Find("Q9_9"));
        Assert.Null(RecipeBook.BuiltIn.Find("4"));
    }

    /// <summary>What published files hold, counted by type.</summary>
    [Theory]
    [InlineData("0.5B", "F32 121, Q5_0 132, Q8_0 13, Q4_K 12, Q6_K 12")]
    [InlineData("72B", "F32 401, Q4_K 401, Q6_K 41, Q5_K 40, Q8_0 40, Q5_0 40")]
    [InlineData("57B-A14B", "F32 197, Q4_K 239, Q6_K 43")]
    [InlineData("A2.7B", "F32 169, Q4_K 193, Q6_K 25, Q8_0 12, Q5_0 12")]
    public void CensusOfQ4_K_M(string shape, string census)
    {
        IReadOnlyList<OutputTensor> planned = PublishedShapes.Plan(PublishedShapes.All[shape], PublishedShapes.Find("Q4_K_M"));
        Assert.Equal(census.Split(", ").Order(), planned.GroupBy(tensor => tensor.Type.Name).Select(group => $"{group.Key} {group.Count()}").Order());
    }

    /// <summary>The IQ1 and IQ2 mixtures count tensors, so a layer's two ffn_down of a mixture of experts advance the count twice.</summary>
    [Fact]
    public void LowBitMixturesCountStackedAndSharedExperts()
    {
        IReadOnlyList<OutputTensor> planned = PublishedShapes.Plan(PublishedShapes.All["57B-A14B"], PublishedShapes.Find("IQ2_XXS"), hasImatrix: true);
        Assert.Equal(
            ["blk.0.ffn_down_exps.weight", "blk.0.ffn_down_shexp.weight", "blk.1.ffn_down_exps.weight"],
            planned.Where(tensor => tensor.Name.Contains("ffn_down", StringComparison.Ordinal) && tensor.Type.Name == "Q2_K").Select(tensor => tensor.Name));
    }

    [Theory]
    [InlineData("7B", 0)]
    [InlineData("57B-A14B", 3 * 28)]
    public void MxFp4IsForStackedExperts(string shape, int count)
    {
        IReadOnlyList<OutputTensor> planned = PublishedShapes.Plan(PublishedShapes.All[shape], PublishedShapes.Find("MXFP4_MOE"));
        Assert.Equal(count, planned.Count(tensor => tensor.Type.Name == "MXFP4"));
        Assert.All(planned.Where(tensor => tensor.Type.Name == "MXFP4"), tensor => Assert.Contains("_exps", tensor.Name, StringComparison.Ordinal));
        Assert.Equal(["F32", "MXFP4", "Q8_0"], planned.Select(tensor => tensor.Type.Name).Append("MXFP4").Distinct().Order());
    }

    private static void AssertTotal(string shape, string preset, long bytes, bool hasImatrix = false)
    {
        long planned = PublishedShapes.Plan(PublishedShapes.All[shape], PublishedShapes.Find(preset), hasImatrix).Sum(tensor => tensor.ByteLength);
        Assert.True(bytes == planned, $"{shape} {preset}: {planned} bytes instead of {bytes}");
    }

    /// <summary><c>Q4_0*3</c> is three times Q4_0.</summary>
    private static IEnumerable<string> Repeat(string run) => run.Split('*') is [var type, var count] ? Enumerable.Repeat(type, int.Parse(count)) : [run];

    private static string DataPath(string name) => Path.Combine(AppContext.BaseDirectory, "Pipeline", "Data", name);
}
