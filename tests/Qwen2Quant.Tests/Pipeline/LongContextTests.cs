using System.Text.Json;
using Qwen2Quant.Cli;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>What containers say of long texts, and what the forward pass makes of it.</summary>
public sealed class LongContextTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    public static TheoryData<RopeScalingType, double?, double> Scalings => new()
    {
        { RopeScalingType.Linear, null, 32 },
        { RopeScalingType.Yarn, null, 32 },
        { RopeScalingType.Yarn, 0.75, 6 },
    };

    [Theory]
    [MemberData(nameof(Scalings))]
    public void MetadataOfGgufScaleAsTheFolderDoes(RopeScalingType type, double? attentionFactor, double betaFast)
    {
        RopeScaling scaling = type == RopeScalingType.Linear
            ? new RopeScaling(type, 4)
            : new RopeScaling(type, 4) { OriginalMaxPositionEmbeddings = 64, AttentionFactor = attentionFactor, BetaFast = betaFast };
        string folder = TestCheckpoint.Write(_folder.File("folder"), TestCheckpoint.Small with { RopeScaling = scaling });
        string plain = TestCheckpoint.Write(_folder.File("plain"), TestCheckpoint.Small);
        Conversions.ToGguf(folder, _folder.File("out.gguf"), PlainTypes.F32);
        float[] expected = Hidden(folder);
        Assert.Equal(expected, Hidden(_folder.File("out.gguf")));
        Assert.NotEqual(expected, Hidden(plain));
    }

    // llama.cpp does not read the converter's key: without the other one it would attend with a factor of its own.
    [Fact]
    public void AttentionFactorsAreWrittenAndReadAsLlamaCppReadsThem()
    {
        RopeScaling scaling = new(RopeScalingType.Yarn, 4) { OriginalMaxPositionEmbeddings = 64, AttentionFactor = 0.75 };
        string folder = TestCheckpoint.Write(_folder.File("folder"), TestCheckpoint.Small with { RopeScaling = scaling });
        Conversions.ToGguf(folder, _folder.File("out.gguf"), PlainTypes.F32);
        using Checkpoint output = Checkpoint.Open(_folder.File("out.gguf"), new RunContext());
        Assert.True(output.Gguf!.Metadata.TryGetFloat("qwen2.rope.scaling.attn_factor", out float relative));
        Assert.Equal(0.75 / 1.138629436, relative, 1e-6);
        GgufMetadata others = output.Gguf.Metadata.Clone();
        others.Remove("qwen2.rope.scaling.yarn_attn_factor");
        Assert.Equal(0.75, GgufModelMetadata.ReadConfig(others, output.Raw, "others.gguf").RopeScaling!.AttentionFactor!.Value, 1e-6);
    }

    [Fact]
    public void DualChunksOfTheFolderAndOfTheUserAreTheSame()
    {
        DualChunkAttention chunks = new(40, 8);
        string folder = TestCheckpoint.Write(_folder.File("folder"), TestCheckpoint.Small with { DualChunkAttention = chunks });
        string plain = TestCheckpoint.Write(_folder.File("plain"), TestCheckpoint.Small);
        float[] expected = Hidden(folder);
        Assert.Equal(expected, Hidden(plain, chunks));
        Assert.NotEqual(expected, Hidden(plain));
    }

    [Fact]
    public void DualChunksThatDoNotGoWithTheModelAreRefused()
    {
        string folder = TestCheckpoint.Write(_folder.File("folder"), TestCheckpoint.Small with { RopeScaling = new RopeScaling(RopeScalingType.Dynamic, 2) });
        using Checkpoint checkpoint = Checkpoint.Open(folder, new RunContext());
        Assert.Equal(ModelRules.Values, Assert.Throws<QuantException>(() => checkpoint.AttendIn(new DualChunkAttention(40, 8))).Rule);
    }

    [Fact]
    public void WhatGgufCannotSayIsAnEvent()
    {
        Qwen2Config[] configs =
        [
            TestCheckpoint.Small with { UseSlidingWindow = true, SlidingWindow = 50, MaxWindowLayers = 1 },
            TestCheckpoint.Small with { RopeScaling = new RopeScaling(RopeScalingType.Dynamic, 2) },
            TestCheckpoint.Small with { DualChunkAttention = new DualChunkAttention(40, 8) },
            TestCheckpoint.Small,
        ];
        int[] found = [.. configs.Select((config, index) =>
        {
            using Checkpoint source = Checkpoint.Open(TestCheckpoint.Write(_folder.File($"{index}"), config), new RunContext());
            return GgufPlanner.PlanConversion(source, null, _folder.File("out.gguf"), new RunContext()).Events.Count(planned => planned.Code == "not-in-gguf");
        })];
        Assert.Equal([1, 1, 1, 0], found);
    }

    [Fact]
    public void TheOptionReachesThePassOfEveryVerb()
    {
        foreach (string verb in new[] { "perplexity builtin:tiny", "compare builtin:tiny builtin:tiny" })
        {
            Assert.NotEqual(Perplexity(verb), Perplexity(verb, "--dual-chunk", "128,16"));
            Assert.Equal(Perplexity(verb), Perplexity(verb, "--dual-chunk", "512,100"), 1e-9);
        }

        string[] generate = ["generate", "builtin:tiny", "--temperature", "0", "--max-tokens", "20", "--prompt", "Once upon a time there was a king who"];
        Assert.NotEqual(Run(generate).GetProperty("text").GetString(), Run([.. generate, "--dual-chunk", "8,2"]).GetProperty("text").GetString());
        Assert.Equal(2, CommandLineHost.Run([.. generate, "--dual-chunk", "8,8"], new StringWriter(), new StringWriter(), errorRedirected: true));

        static double Perplexity(string verb, params string[] more)
        {
            JsonElement result = Run([.. verb.Split(' '), "--data", "builtin:text", "--chunks", "1", "--context", "400", .. more]);
            return (result.TryGetProperty("candidate", out JsonElement candidate) ? candidate : result).GetProperty("perplexity").GetDouble();
        }

        static JsonElement Run(string[] arguments)
        {
            StringWriter output = new();
            Assert.Equal(0, CommandLineHost.Run([.. arguments, "--json", "--quiet"], output, new StringWriter(), errorRedirected: true));
            return JsonDocument.Parse(output.ToString()).RootElement;
        }
    }

    private static float[] Hidden(string path, DualChunkAttention? chunks = null)
    {
        using Checkpoint checkpoint = Checkpoint.Open(path, new RunContext());
        if (chunks is not null) checkpoint.AttendIn(chunks);
        Qwen2Model model = Qwen2Model.Load(checkpoint.Config, checkpoint.Tensors, new ForwardOptions { Threads = 1 });
        float[] hidden = new float[100 * checkpoint.Config.HiddenSize];
        model.Forward([.. Enumerable.Range(0, 100)], model.NewCache(100), hidden);
        return hidden;
    }
}
