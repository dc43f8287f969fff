using System.Text.Json.Nodes;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Model.Tokenization;
using Qwen2Quant.Pipeline;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Cutting and joining containers, and shapes that change no function.</summary>
public sealed class StructureTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(null, 5L)]
    [InlineData(100_000L, null)]
    public void APartedGgufIsJoinedToTheSameBytes(long? bytes, long? tensors)
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small);
        Conversions.Quantize(model, _folder.File("m.gguf"), "Q4_0");
        ContainerReport split = Copy(_folder.File("m.gguf"), new ContainerLimit(bytes, tensors), _folder.File("s.gguf"));
        Assert.InRange(split.Files, 3, 40);
        Assert.EndsWith($"s-00001-of-{split.Files:00000}.gguf", split.Output, StringComparison.Ordinal);
        ContainerReport merged = Copy(_folder.File($"s-00002-of-{split.Files:00000}.gguf"), null, _folder.File("again.gguf"));
        Assert.Equal((1, split.Tensors), (merged.Files, merged.Tensors));
        Assert.Equal(File.ReadAllBytes(_folder.File("m.gguf")), File.ReadAllBytes(_folder.File("again.gguf")));
    }

    [Theory]
    [InlineData(null)]
    [InlineData("w4g32")]
    public void AFolderOfShardsKeepsItsTensors(string? scheme)
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small);
        if (scheme is not null) Conversions.ToGptq(model, model = _folder.File("packed"), scheme);
        ContainerReport split = Copy(model, new ContainerLimit(50_000, null), _folder.File("shards")), merged = Copy(_folder.File("shards"), null, _folder.File("one"));
        Assert.True(split.Files > 1 && merged.Files == 1);
        foreach (string name in Directory.GetFiles(model).Select(path => Path.GetFileName(path)).Where(name => !name.EndsWith(".safetensors", StringComparison.Ordinal)))
        {
            Assert.Equal(File.ReadAllBytes(Path.Combine(model, name)), File.ReadAllBytes(_folder.File("one/" + name)));
        }

        using SafetensorsCheckpoint before = Raw(model), shards = Raw(_folder.File("shards")), after = Raw(_folder.File("one"));
        Assert.Equal(before.Tensors.Select(entry => entry.Name).Order(StringComparer.Ordinal), after.Tensors.Select(entry => entry.Name).Order(StringComparer.Ordinal));
        foreach (TensorEntry entry in before.Tensors)
        {
            Assert.Equal(Bytes(before, entry.Name), Bytes(shards, entry.Name));
            Assert.Equal(Bytes(before, entry.Name), Bytes(after, entry.Name));
        }

        using Checkpoint opened = Checkpoint.Open(_folder.File("shards"), new RunContext());
        Assert.Equal(scheme is not null, opened.ContainerName.Contains("GPTQ", StringComparison.Ordinal));

        static SafetensorsCheckpoint Raw(string path) => SafetensorsCheckpoint.Open(DiskFileLayer.Instance, path, new ReadOptions());
        static byte[] Bytes(SafetensorsCheckpoint source, string name)
        {
            TensorEntry entry = source.Find(name)!;
            byte[] bytes = new byte[entry.ByteLength];
            source.ReadRaw(entry, 0, bytes);
            return bytes;
        }
    }

    [Fact]
    public void LimitsThatMeanNothingAreRefused()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Copy(model, new ContainerLimit(null, 3), _folder.File("x"))).Kind);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Copy(model, null, model)).Kind);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => Copy("builtin:tiny", null, _folder.File("x"))).Kind);
    }

    [Theory]
    [InlineData(false, false, 64)]
    [InlineData(false, true, 1)]
    [InlineData(true, true, 40)]
    public void PaddedModelsGiveTheSameLogits(bool isMoe, bool untie, int multiple)
    {
        Qwen2Config config = isMoe ? TestCheckpoint.Small with { IsMoe = true, MoeIntermediateSize = 32, SharedExpertIntermediateSize = 64, NumExperts = 4, NumExpertsPerTok = 2 } : TestCheckpoint.Small;
        string model = TestCheckpoint.Write(_folder.File("model"), config);
        RunContext context = new();
        using Checkpoint source = Checkpoint.Open(model, context);
        using (Checkpoint padded = PadPlanner.Open(source, multiple, untie)) new Conversion(padded, PadPlanner.Plan(padded, _folder.File("out"), 60_000, context), new ConversionOptions("pad"), context).Run();
        using Checkpoint output = Checkpoint.Open(_folder.File("out"), context);
        JsonNode json = JsonNode.Parse(File.ReadAllBytes(_folder.File("out/config.json")))!;
        Assert.Equal(!untie, (bool)json["tie_word_embeddings"]!);
        if (isMoe) Assert.Equal((40, 80), (output.Config.MoeIntermediateSize, output.Config.SharedExpertIntermediateSize));
        else Assert.Equal(multiple == 1 ? 96 : 128, output.Config.IntermediateSize);
        if (multiple == 64)
        {
            // Of 32 rows more one follows each of the first 32.
            float[] before = source.Tensors.ReadAll(source.Tensors.Find("model.layers.1.mlp.up_proj.weight")!), after = output.Tensors.ReadAll(output.Tensors.Find("model.layers.1.mlp.up_proj.weight")!);
            for (int row = 0; row < 128; row++)
            {
                int? from = row >= 64 ? row - 32 : row % 2 == 0 ? row / 2 : null;
                for (int column = 0; column < 64; column++) Assert.Equal(from is null ? 0 : before[(from.Value * 64) + column], after[(row * 64) + column]);
            }
        }

        int[] tokens = [.. Enumerable.Range(0, 40).Select(i => i * 37 % config.VocabSize)];
        float[] expected = Logits(source, tokens), actual = Logits(output, tokens);
        float largest = expected.Max(MathF.Abs);
        for (int i = 0; i < expected.Length; i++) Assert.Equal(expected[i], actual[i], 1e-6f * largest);
    }

    /// <summary>A GGUF file has no companions to copy: what it says of tokenizer and configuration becomes files.</summary>
    [Fact]
    public void APaddedGgufFileIsAWholeFolder()
    {
        string path = _folder.File("m.gguf");
        Conversions.ToGguf("builtin:tiny", path);
        RunContext context = new();
        using Checkpoint source = Checkpoint.Open(path, context);
        using (Checkpoint padded = PadPlanner.Open(source, 768, true))
        {
            Assert.Equal(["intermediate_size: 512 became 768", "the embedding is written once more as lm_head.weight"], PadPlanner.Changes(source.Config, padded.Config).Select(item => item.Message));
            new Conversion(padded, PadPlanner.Plan(padded, _folder.File("out"), long.MaxValue, context), new ConversionOptions("pad"), context).Run();
        }

        using Checkpoint output = Checkpoint.Open(_folder.File("out"), context);
        Assert.Equal((768, false), (output.Config.IntermediateSize, output.Config.TieWordEmbeddings));
        int[] tokens = new BpeTokenizer(source.Tokenizer).Encode("And the LORD said unto Moses,", parseSpecial: false).ToArray();
        Assert.Equal(tokens, new BpeTokenizer(output.Tokenizer).Encode("And the LORD said unto Moses,", parseSpecial: false));
        float[] expected = Logits(source, tokens), actual = Logits(output, tokens);
        float largest = expected.Max(MathF.Abs);
        for (int i = 0; i < expected.Length; i++) Assert.Equal(expected[i], actual[i], 1e-6f * largest);
    }

    [Fact]
    public void WhatCannotBePaddedIsRefused()
    {
        string model = TestCheckpoint.Write(_folder.File("model"), TestCheckpoint.Small);
        using Checkpoint source = Checkpoint.Open(model, new RunContext());
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => PadPlanner.Open(source, 32, false)).Kind);
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => PadPlanner.Open(source, 1000, false)).Kind);
        Conversions.ToGptq(model, _folder.File("packed"), "w4g32");
        using Checkpoint packed = Checkpoint.Open(_folder.File("packed"), new RunContext());
        Assert.Equal(PipelineRules.SourceNotQuantized, Assert.Throws<QuantException>(() => PadPlanner.Open(packed, 64, false)).Rule);
    }

    private static ContainerReport Copy(string path, ContainerLimit? limit, string target) => Conversions.Copy(path, target, limit);

    private static float[] Logits(Checkpoint checkpoint, int[] tokens)
    {
        Qwen2Model model = Qwen2Model.Load(checkpoint.Config, checkpoint.Tensors, new ForwardOptions { Threads = 2, ResidentBytes = long.MaxValue, Exact = true });
        float[] hidden = new float[tokens.Length * checkpoint.Config.HiddenSize], logits = new float[tokens.Length * checkpoint.Config.VocabSize];
        model.Forward(tokens, model.NewCache(tokens.Length), hidden);
        model.Logits(hidden, tokens.Length, logits);
        return logits;
    }
}
