using System.Reflection;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline;
using Qwen2Quant.Pipeline.Batch;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Architecture;

/// <summary>The catalogues of rules together: ids are unique, none is missing from its list, and the readers' families have no gap.</summary>
public sealed class RuleCatalogueTests
{
    private static readonly Rule[] All =
    [
        .. SafetensorsRules.All, .. WeightFileRules.All, .. GgufRules.All, .. ImatrixRules.All, .. PackedRules.All, .. ModelRules.All, .. TokenizerRules.All, .. ValidationRules.All, .. LogitRules.All, .. PipelineRules.All, .. BatchRules.All, .. NumericRules.All, .. StatisticsRules.All, .. FileRules.All,
    ];

    [Fact]
    public void IdsAreUnique() => Assert.Equal(All.Length, All.Select(rule => rule.Id).Distinct().Count());

    [Fact]
    public void EveryRuleIsInACatalogue()
    {
        Assembly[] assemblies = [typeof(NumericRules).Assembly, typeof(SafetensorsRules).Assembly, typeof(ModelRules).Assembly, typeof(ValidationRules).Assembly, typeof(PipelineRules).Assembly];
        Rule[] declared = [.. assemblies.SelectMany(assembly => assembly.GetTypes())
            .SelectMany(type => type.GetFields(BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic))
            .Where(field => field.FieldType == typeof(Rule) && !field.Name.StartsWith('<'))
            .Select(field => (Rule)field.GetValue(null)!)];
        Assert.Equal(declared.Length, All.Length);
        Assert.All(declared, rule => Assert.Contains(rule, All));
    }

    [Fact]
    public void ReadersCoverEveryRuleOfTheirFamilies()
    {
        HashSet<string> ids = [.. All.Select(rule => rule.Id)];
        IEnumerable<string> expected = Enumerable.Range(1, 30).Select(number => $"ST-{number}")
            .Concat(Enumerable.Range(31, 25).Select(number => $"GG-{number}"))
            .Concat(Enumerable.Range(56, 22).Select(number => $"HF-{number}"));
        Assert.All(expected, id => Assert.Contains(id, ids));
    }
}
