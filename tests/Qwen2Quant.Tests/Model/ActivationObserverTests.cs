using Qwen2Quant.Model;

namespace Qwen2Quant.Tests.Model;

/// <summary>An observer sees the inputs of all matrices, as the reference computes them, and changes nothing.</summary>
public sealed class ActivationObserverTests
{
    public static TheoryData<string> Names => ForwardTests.Names;

    [Theory]
    [MemberData(nameof(Names))]
    public void InputsAreThoseOfTheReference(string name)
    {
        Qwen2Config config = ForwardTests.Configs[name];
        MemorySource source = MemorySource.Random(config, 21);
        int[] tokens = ForwardTests.Tokens(config, 29);
        ReferenceForward reference = new(config, source);
        reference.Logits(tokens);
        Recorder seen = Run(config, source, tokens, batchTokens: 12);

        HashSet<LinearInput> expected = [];
        foreach (CanonicalTensor tensor in TensorCatalogue.For(config).Tensors)
        {
            if (LinearInput.Of(tensor) is not { } input || !reference.Inputs.TryGetValue(tensor.Name[..^".weight".Length], out (double[] Squares, int Rows) matrix)) continue;
            expected.Add(input);
            Assert.Equal(matrix.Rows, seen.Rows[input]);
            AssertClose(matrix.Squares, seen.Squares[input]);
        }

        if (config.TieWordEmbeddings) AssertClose(reference.Inputs["model.embed_tokens"].Squares, seen.Squares[LinearInput.Output]);
        expected.Add(LinearInput.Output);
        Assert.Equal(expected, [.. seen.Rows.Keys]);
    }

    [Fact]
    public void EveryMatrixOfTheLayersHasAnInput()
    {
        foreach (Qwen2Config config in ForwardTests.Configs.Values)
        {
            foreach (CanonicalTensor tensor in TensorCatalogue.For(config).Tensors)
            {
                Assert.Equal(tensor.Shape.Rank == 2 && tensor.Role != TensorRole.TokenEmbedding, LinearInput.Of(tensor) is not null);
            }
        }
    }

    [Fact]
    public void WatchingChangesNoBit()
    {
        Qwen2Config config = ForwardTests.Configs["experts"];
        MemorySource source = MemorySource.Random(config, 22);
        int[] tokens = ForwardTests.Tokens(config, 40);
        Qwen2Model model = Qwen2Model.Load(config, source, new ForwardOptions { Threads = 2 });
        float[] alone = new float[tokens.Length * config.HiddenSize], watched = new float[alone.Length];
        model.Forward(tokens, model.NewCache(40), alone);
        model.Forward(tokens, model.NewCache(40), watched, new Recorder());
        Assert.Equal(alone, watched);
    }

    private static Recorder Run(Qwen2Config config, MemorySource source, int[] tokens, int batchTokens)
    {
        Recorder recorder = new();
        Qwen2Model model = Qwen2Model.Load(config, source, new ForwardOptions { Threads = 2, BatchTokens = batchTokens });
        model.Forward(tokens, model.NewCache(tokens.Length), new float[tokens.Length * config.HiddenSize], recorder);
        return recorder;
    }

    private static void AssertClose(double[] expected, double[] found)
    {
        Assert.Equal(expected.Length, found.Length);
        double largest = expected.Max();
        for (int i = 0; i < expected.Length; i++) Assert.Equal(expected[i], found[i], 1e-4 * largest);
    }

    private sealed class Recorder : IActivationObserver
    {
        public Dictionary<LinearInput, double[]> Squares { get; } = [];
        public Dictionary<LinearInput, int> Rows { get; } = [];

        public void Observe(LinearInput input, ReadOnlySpan<float> rows, int rowCount)
        {
            Assert.True(rowCount > 0);
            int width = rows.Length / rowCount;
            if (!Squares.TryGetValue(input, out double[]? squares)) Squares.Add(input, squares = new double[width]);
            Rows[input] = Rows.GetValueOrDefault(input) + rowCount;
            for (int i = 0; i < rows.Length; i++) squares[i % width] += (double)rows[i] * rows[i];
        }
    }
}
