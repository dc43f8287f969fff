using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Repacking of blocks and tensors that are not like the others.</summary>
public sealed class RepackEdgeTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    /// <summary>ggml writes a scale of zero for blocks of zeros; readers of other layouts may divide by theirs.</summary>
    [Theory]
    [InlineData("Q8_0", "gptq:w8g32")]
    [InlineData("Q8_0", "compressed-tensors:W8A16-g32")]
    [InlineData("Q4_0", "gptq:w4g32-asym")]
    [InlineData("Q4_0", "awq:w4g32")]
    [InlineData("Q4_0", "mlx:w4g32")]
    public void BlocksOfZerosGetAScale(string from, string to)
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small, edit: static (name, values) =>
        {
            if (name.EndsWith("proj.weight", StringComparison.Ordinal)) values.AsSpan(0, 64).Clear();
        });
        Conversions.Quantize(model, _folder.File("m.gguf"), from, options: new ConversionOptions("gguf:" + from, Effort: Effort.Reference), quantization: Pure);
        ConversionReport report = Repack(_folder.File("m.gguf"), to, _folder.File("out"));
        Assert.Equal(14, report.Tensors.Count(tensor => tensor.Solver == "exact" && tensor.Name.EndsWith("proj.weight", StringComparison.Ordinal)));
        using Checkpoint before = Checkpoint.Open(_folder.File("m.gguf"), new RunContext()), after = Checkpoint.Open(_folder.File("out"), new RunContext());
        foreach (TensorEntry entry in before.Tensors.Tensors.Where(entry => entry.Name.EndsWith("proj.weight", StringComparison.Ordinal)))
        {
            Assert.Equal(before.Tensors.ReadAll(entry), after.Tensors.ReadAll(after.Tensors.Find(entry.Name)!));
        }

        using SafetensorsCheckpoint raw = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, _folder.File("out"), new ReadOptions());
        TensorEntry[] scales = [.. raw.Tensors.Where(entry => entry.Name.EndsWith("scales", StringComparison.Ordinal) || entry.Name.EndsWith("weight_scale", StringComparison.Ordinal))];
        Assert.True(scales.Length >= 14);
        Assert.All(scales, entry => Assert.DoesNotContain(0f, raw.ReadAll(entry)));
    }

    /// <summary>Version 1 of GPTQ stores zeros less one.</summary>
    [Fact]
    public void AZeroOfZeroHasNoPlaceInVersion1()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small, edit: static (name, values) =>
        {
            for (int i = 0; name.EndsWith("proj.weight", StringComparison.Ordinal) && i < values.Length; i++) values[i] += 0.2f;
        });
        Conversions.ToGptq(model, _folder.File("v2"), "w4g32-asym-v2");
        QuantException refused = Assert.Throws<QuantException>(() => Repack(_folder.File("v2"), "gptq:w4g32-asym", _folder.File("v1")));
        Assert.Contains("cannot hold the values of 14 quantized matrices", refused.Message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(_folder.File("v1")));
        Assert.Equal(14, Repack(_folder.File("v2"), "awq:w4g32", _folder.File("awq")).Tensors.Count(tensor => tensor.Solver is "exact" or "copy" && tensor.Type == "W4G32_ASYM"));
    }

    /// <summary>Small halves have fewer bits than bfloat16; one group is enough.</summary>
    [Fact]
    public void AScaleThatIsNoHalfIsRefused()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small, edit: static (name, values) =>
        {
            if (!name.EndsWith("layers.1.mlp.down_proj.weight", StringComparison.Ordinal)) return;
            foreach (ref float value in values.AsSpan(values.Length - 32)) value *= 1e-3f;
        });
        RunContext context = new();
        using (Checkpoint source = Checkpoint.Open(model, context))
        {
            ConversionPlan plan = PackedPlanner.Plan(source, PackedScheme.Parse("compressed-tensors:W8A16-g32")!, new QuantizationOptions(), _folder.File("ct"), long.MaxValue, context);
            _ = new Conversion(source, plan, new ConversionOptions("compressed-tensors:W8A16-g32"), context).Run();
        }

        QuantException refused = Assert.Throws<QuantException>(() => Repack(_folder.File("ct"), "gptq:w8g32", _folder.File("out")));
        Assert.Contains("1 quantized matrices: model.layers.1.mlp.down_proj.weight", refused.Message, StringComparison.Ordinal);
        Assert.Equal("W8G32_BF16", refused.Found);
    }

    /// <summary>A quantized embedding has no place in most layouts, and floats may be narrower in the output: both are said.</summary>
    [Fact]
    public void WhatBecomesPlainIsNamed()
    {
        // Biases that halves hold.
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small, edit: static (name, values) =>
        {
            for (int i = 0; name.EndsWith(".bias", StringComparison.Ordinal) && i < values.Length; i++) values[i] = MathF.Round(values[i] * 64) / 64;
        });
        Conversions.Quantize(model, _folder.File("m.gguf"), "Q8_0", options: new ConversionOptions("gguf:Q8_0", Effort: Effort.Reference), quantization: Pure);
        QuantEvent embedding = Assert.Single(Repack(_folder.File("m.gguf"), "gptq:w8g32", _folder.File("gptq")).Events, item => item.Code is "dequantized" or "rounded");
        Assert.Equal(("dequantized", "model.embed_tokens.weight"), (embedding.Code, embedding.Tensor));
        Assert.Contains("Q8_0; written as F16, which rounds its values", embedding.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(Repack(_folder.File("m.gguf"), "mlx:w8g32", _folder.File("mlx")).Events, item => item.Code is "dequantized" or "rounded");

        // A norm that only single precision holds.
        string fine = _folder.File("fine");
        Conversions.ToFolder(model, fine, PlainTypes.F32);
        using (FileStream file = File.Open(Path.Combine(fine, "model.safetensors"), FileMode.Open))
        using (SafetensorsCheckpoint weights = SafetensorsCheckpoint.Open(DiskFileLayer.Instance, fine, new ReadOptions()))
        {
            file.Position = weights.Find("model.norm.weight")!.ByteOffset;
            file.Write(BitConverter.GetBytes(1.0001f));
        }

        Conversions.Quantize(fine, _folder.File("fine.gguf"), "Q8_0", options: new ConversionOptions("gguf:Q8_0", Effort: Effort.Reference));
        QuantEvent norm = Assert.Single(Repack(_folder.File("fine.gguf"), "gptq:w8g32", _folder.File("out")).Events, item => item.Code == "rounded");
        Assert.Equal("model.norm.weight", norm.Tensor);
    }

    private static QuantizationOptions Pure => new() { Types = new() { Pure = true } };

    private static ConversionReport Repack(string from, string to, string target)
    {
        RunContext context = new();
        using Checkpoint source = Checkpoint.Open(from, context);
        ConversionPlan plan = RepackPlanner.Plan(source, PackedScheme.Parse(to)!, allowRequantize: false, target, long.MaxValue, context);
        return new Conversion(source, plan, new ConversionOptions(to), context).Run();
    }
}
