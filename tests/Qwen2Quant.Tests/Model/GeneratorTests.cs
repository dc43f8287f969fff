using Qwen2Quant.Core.Errors;
using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

public class GeneratorTests
{
    private static readonly HashSet<int> None = [];

    // The first outputs of the generator for seed 1234567, as its authors' C code prints them.
    [Fact]
    public void SplitMixIsTheReference()
    {
        SplitMix64 random = new(1234567);
        Assert.Equal([6457827717110365317UL, 3203168211198807973UL, 9817491932198370423UL], [random.Next(), random.Next(), random.Next()]);
        Assert.InRange(random.NextDouble(), 0, 1 - 1e-16);
    }

    [Fact]
    public void StopsAtStopTokensAndRepeatsUnderOneSeed()
    {
        Qwen2Model model = Random(8);
        SamplingOptions options = new() { Temperature = 1, Seed = 5 };
        int[] text = [.. Generator.Generate(model, [1, 2, 3], options, 20, None)];
        Assert.Equal(20, text.Length);
        Assert.Equal(text, Generator.Generate(model, [1, 2, 3], options, 20, None));
        Assert.NotEqual(text, Generator.Generate(model, [1, 2, 3], options with { Seed = 6 }, 20, None));
        int stop = text[7];
        Assert.Equal(text.TakeWhile(token => token != stop), Generator.Generate(model, [1, 2, 3], options, 20, new HashSet<int> { stop }));
        Assert.Throws<ArgumentException>(() => Generator.Generate(model, [], options, 1, None));
        Assert.Equal([], Generator.Generate(model, [1], options, 0, None));
    }

    /// <summary>What a text shares with the one before is not run again, and what follows is what a fresh cache gives.</summary>
    [Theory]
    [InlineData(new[] { 1, 2, 3, 4, 5 }, 3)]
    [InlineData(new[] { 1, 2, 9, 9 }, 2)]
    [InlineData(new[] { 1, 2 }, 1)]
    [InlineData(new[] { 1, 2, 3 }, 1)]
    [InlineData(new[] { 7 }, 1)]
    public void ACommonPrefixStaysInTheCache(int[] second, int expectedRun)
    {
        Qwen2Model model = Random(8);
        SamplingOptions options = new() { RepetitionPenalty = 1.5 };
        Generator generator = new(model, 40, options);
        Assert.Equal(3, generator.Read([1, 2, 3]));
        for (int i = 0; i < 4; i++) generator.Next();
        Assert.Equal(7, generator.Tokens.Count);
        int run = second.AsSpan().CommonPrefixLength([.. generator.Tokens]) is int common && common < second.Length ? second.Length - common : 1;
        Assert.Equal(run, generator.Read(second));
        Assert.InRange(run, 1, expectedRun);
        Assert.Equal(Generator.Generate(model, second, options, 6, None), Enumerable.Range(0, 6).Select(_ => generator.Next()));
    }

    [Fact]
    public void ALongTextIsReadInPartsAndCanBeStoppedBetweenThem()
    {
        Qwen2Model model = Random(9);
        int[] text = [.. Enumerable.Range(0, 1300).Select(i => i * i % 50)];
        Generator whole = new(model, 1310, new SamplingOptions());
        whole.Read(text);
        Generator stopped = new(model, 1310, new SamplingOptions());
        using CancellationTokenSource source = new();
        CancelAfter progress = new(source, 2);
        Assert.Throws<OperationCanceledException>(() => stopped.Read(text, progress, source.Token));
        Assert.Equal(1024, progress.Count);
        Assert.Equal(1300 - 1024, stopped.Read(text));
        Assert.Equal(Enumerable.Range(0, 5).Select(_ => whole.Next()), Enumerable.Range(0, 5).Select(_ => stopped.Next()));
    }

    [Fact]
    public void ATokenTakesNoMemory()
    {
        Generator generator = new(Random(10), 300, new SamplingOptions { Temperature = 0.7, TopK = 20, TopP = 0.8, RepetitionPenalty = 1.05 });
        generator.Read([1, 2, 3]);
        for (int i = 0; i < 100; i++) generator.Next();
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 20; i++) generator.Next();
        long each = (GC.GetAllocatedBytesForCurrentThread() - before) / 20;
        // Closures of the forward pass; an array of logits or hidden states of a real model would be far larger.
        Assert.InRange(each, 0, 8192);
    }

    private static Qwen2Model Random(int seed)
    {
        Qwen2Config config = new() { VocabSize = 50, HiddenSize = 16, IntermediateSize = 24, NumHiddenLayers = 1, NumAttentionHeads = 2, NumKeyValueHeads = 1, HeadDim = 8 };
        return Qwen2Model.Load(config, MemorySource.Random(config, seed), new ForwardOptions { Threads = 1 });
    }

    private sealed class CancelAfter(CancellationTokenSource source, int parts) : Core.Running.IProgressTask
    {
        private int _seen;

        public long Count { get; private set; }

        public void Advance(long amount)
        {
            Count += amount;
            if (++_seen == parts) source.Cancel();
        }

        public void Dispose()
        {
        }
    }

    [Fact]
    public void GenerationConfigSetsTheOptions()
    {
        GenerationConfig config = GenerationConfig.ParseJson("""{"eos_token_id": [151645, 151643], "do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05, "pad_token_id": 151643, "bos_token_id": 151643, "max_new_tokens": 9}"""u8, "generation_config.json");
        Assert.Equal([151645, 151643], config.EosTokenIds);
        Assert.Equal((151643, 151643, 9), (config.BosTokenId, config.PadTokenId, config.MaxNewTokens));
        Assert.Equal(new SamplingOptions { Temperature = 0.7, TopK = 20, TopP = 0.8, RepetitionPenalty = 1.05, Seed = 3 }, SamplingOptions.From(config, 3));
        GenerationConfig greedy = GenerationConfig.ParseJson("""{"eos_token_id": 7, "do_sample": false, "temperature": 0.7}"""u8, "generation_config.json");
        Assert.Equal([7], greedy.EosTokenIds);
        Assert.Equal(new SamplingOptions(), SamplingOptions.From(greedy, 0));
        foreach (string bad in new[] { """{"top_p": 0}""", """{"temperature": -1}""", """{"repetition_penalty": 0}""", """{"eos_token_id": "x"}""", """{"top_k": -1}""", """{"eos_token_id": -5}""" })
        {
            Assert.Throws<QuantException>(() => GenerationConfig.ParseJson(System.Text.Encoding.UTF8.GetBytes(bad), "generation_config.json"));
        }
    }
}
