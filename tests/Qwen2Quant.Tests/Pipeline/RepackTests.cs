using System.Text;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Recipes;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;
using Xunit.Abstractions;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Every layout into every other: the same values where the target can hold them, a refusal where it cannot.</summary>
public sealed class RepackTests(ITestOutputHelper print) : IDisposable
{
    private const string Gguf = "gguf:";

    private static readonly string[] Schemes =
    [
        "gptq:w4g32", "gptq:w4g128-asym", "gptq:w4g128-asym-v2", "gptq:w8g64", "awq:w4g128", "compressed-tensors:W4A16-g32", "compressed-tensors:W4A16_ASYM", "compressed-tensors:W8A16",
        "compressed-tensors:W8A8", "compressed-tensors:FP8_DYNAMIC", "compressed-tensors:NVFP4A16", "compressed-tensors:MXFP4A16", "mlx:w4g32", "mlx:w8g64", "gguf:Q4_0", "gguf:Q4_1", "gguf:Q8_0", "gguf:Q4_K_M",
    ];

    /// <summary>A row for each source, a column for each target: = copied, e exact, . refused. Sources have bfloat16 where their layout has no type of its own for scales.</summary>
    private const string Expected = """
        =....=......e.eee.
        .=eee.ee.....e..e.
        .e=e=.=e.....e..e.
        ...=.........e..e.
        .e=e=.=e.....e..e.
        e....=......e.eee.
        .eeee.=e.....e.ee.
        ...e...=.....e..e.
        ...e...e=....e..e.
        .........=........
        ..........=.......
        ...........=......
        ............=..e..
        .............=....
        ............e.=ee.
        ............e..=..
        ................=.
        ..................
        """;

    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void EveryPairIsExactOrRefused()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small with { HiddenSize = 256, IntermediateSize = 256, HeadDim = 64, NumHiddenLayers = 1 }, edit: Lift);
        StringBuilder matrix = new();
        foreach (string from in Schemes)
        {
            string source = Path(from);
            Quantize(model, source, from);
            foreach (string to in Schemes) matrix.Append(Repack(source, to));
            matrix.Append('\n');
        }

        print.WriteLine(matrix.ToString());
        Assert.Equal(Expected.ReplaceLineEndings("\n") + "\n", matrix.ToString());
    }

    [Fact]
    public void WhatCannotBeHeldIsNamedOrRoundedOnceMore()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small with { HiddenSize = 128, IntermediateSize = 128, HeadDim = 32 });
        Quantize(model, _folder.File("w8"), "gptq:w8g64");
        QuantException refused = Assert.Throws<QuantException>(() => Run(_folder.File("w8"), "awq:w4g64", _folder.File("awq"), false));
        Assert.Equal((ErrorKind.InvalidInput, PipelineRules.SourceNotQuantized), (refused.Kind, refused.Rule));
        Assert.Contains("14 quantized matrices: model.layers.0.self_attn.q_proj.weight, ", refused.Message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(_folder.File("awq")));
        ConversionReport report = Run(_folder.File("w8"), "awq:w4g64", _folder.File("awq"), true);
        Assert.Equal(14, report.Events.Count(item => item.Code == "requantized"));
        Assert.Equal(14, report.Tensors.Count(tensor => tensor.Solver == "rtn"));
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Run(model, "awq:w4g64", _folder.File("plain"), false)).Kind);
    }

    /// <summary>So that zeros are not in the middle.</summary>
    private static void Lift(string name, float[] values)
    {
        if (!name.Contains("proj.weight", StringComparison.Ordinal)) return;
        for (int i = 0; i < values.Length; i++) values[i] += 0.06f;
    }

    private string Path(string scheme) => _folder.File(scheme.Replace(':', '-') + (scheme.StartsWith(Gguf, StringComparison.Ordinal) ? ".gguf" : ""));

    private static void Quantize(string model, string target, string scheme)
    {
        RunContext context = new();
        using Checkpoint source = Checkpoint.Open(model, context);
        ConversionPlan plan = PackedScheme.Parse(scheme) is { } packed
            ? PackedPlanner.Plan(source, packed, new QuantizationOptions(), target, long.MaxValue, context)
            : GgufPlanner.PlanQuantization(source, RecipeBook.BuiltIn.Find(scheme[Gguf.Length..])!, new QuantizationOptions { Types = new RecipeOptions { EmbeddingType = PlainTypes.BF16, OutputType = PlainTypes.BF16 } }, target, context);
        new Conversion(source, plan, new ConversionOptions(scheme, Effort: Effort.Fast), context).Run();
    }

    private static ConversionReport Run(string from, string to, string target, bool allowRequantize)
    {
        RunContext context = new();
        using Checkpoint source = Checkpoint.Open(from, context);
        ConversionPlan plan = PackedScheme.Parse(to) is { } packed
            ? RepackPlanner.Plan(source, packed, allowRequantize, target, long.MaxValue, context)
            : RepackPlanner.Plan(source, RecipeBook.BuiltIn.Find(to[Gguf.Length..])!, allowRequantize, target, context);
        return new Conversion(source, plan, new ConversionOptions(to), context).Run();
    }

    private char Repack(string from, string to)
    {
        string target = _folder.File("out" + (to.StartsWith(Gguf, StringComparison.Ordinal) ? ".gguf" : ""));
        try
        {
            ConversionReport report = Run(from, to, target, false);
            string[] solvers = [.. report.Tensors.Where(tensor => tensor.Name.Contains("proj.weight", StringComparison.Ordinal) || (tensor.Name.StartsWith("blk", StringComparison.Ordinal) && tensor.Shape.Count > 1)).Select(tensor => tensor.Solver).Distinct()];
            using Checkpoint before = Checkpoint.Open(from, new RunContext()), after = Checkpoint.Open(target, new RunContext());
            foreach (CanonicalTensor tensor in before.Tensors.Catalogue.Tensors.Where(tensor => tensor.Role.IsLayerLinear()))
            {
                Assert.Equal(before.Tensors.ReadAll(before.Tensors.Find(tensor.Name)!), after.Tensors.ReadAll(after.Tensors.Find(tensor.Name)!));
            }

            return Assert.Single(solvers) switch { "copy" => '=', "exact" => 'e', _ => '?' };
        }
        catch (QuantException refused) when (refused.Rule == PipelineRules.SourceNotQuantized)
        {
            return '.';
        }
        finally
        {
            if (Directory.Exists(target)) Directory.Delete(target, true);
            File.Delete(target);
        }
    }
}
