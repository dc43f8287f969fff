using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Model;

/// <summary>Layer by layer over all windows: the bits of the pass window by window, in states and in what an observer sees.</summary>
public sealed class LayerwisePassTests : IDisposable
{
    private const int WindowCount = 5, WindowLength = 29;

    private readonly TempFolder _folder = new();

    public static TheoryData<string> Names => ForwardTests.Names;

    public void Dispose() => _folder.Dispose();

    [Theory]
    [MemberData(nameof(Names))]
    public void StatesAndSumsHaveTheBitsOfTheWholeModel(string name)
    {
        Qwen2Config config = ForwardTests.Configs[name];
        MemorySource source = MemorySource.Random(config, 31);
        int[] tokens = ForwardTests.Tokens(config, WindowCount * WindowLength);
        Qwen2Model whole = Qwen2Model.Load(config, source, new ForwardOptions { Threads = 1 });
        Assert.True(whole.IsResident);
        Sums expectedSums = new();
        float[] expected = new float[tokens.Length * config.HiddenSize];
        for (int window = 0; window < WindowCount; window++)
        {
            whole.Forward(tokens.AsSpan(window * WindowLength, WindowLength), whole.NewCache(WindowLength), expected.AsSpan(window * WindowLength * config.HiddenSize), expectedSums);
        }

        Qwen2Model streaming = Qwen2Model.Load(config, source, new ForwardOptions { Threads = 2, ResidentBytes = 0 });
        foreach (Qwen2Model model in new[] { streaming, whole })
        {
            foreach (int batchTokens in new[] { 7, WindowLength, (2 * WindowLength) + 3, 1024 })
            {
                foreach (long layerBytes in new[] { 0, streaming.LargestLayerBytes / 2, long.MaxValue })
                {
                    foreach (bool spills in new[] { false, true })
                    {
                        IScratchFile? file = spills ? DiskFileLayer.Instance.CreateScratch(_folder.Path) : null;
                        Sums sums = new();
                        float[] states = Run(model, tokens, new LayerwiseOptions { BatchTokens = batchTokens, LayerBytes = layerBytes, StateFile = file }, sums);
                        string where = $"batches of {batchTokens}, {layerBytes} bytes, spilled {spills}";
                        Assert.True(expected.AsSpan().SequenceEqual(states), where);
                        Assert.True(expectedSums.Equals(sums), where);
                    }
                }
            }
        }

        Assert.True(whole.IsResident);
        Assert.Equal([], Directory.GetFileSystemEntries(_folder.Path));
    }

    /// <summary>Input by input: the states of the pass, and each input shown before any window goes through the matrices that take it.</summary>
    [Theory]
    [MemberData(nameof(Names))]
    public void InputByInputGivesTheSameStatesAndSums(string name)
    {
        Qwen2Config config = ForwardTests.Configs[name];
        int[] tokens = ForwardTests.Tokens(config, WindowCount * WindowLength);
        Qwen2Model model = Qwen2Model.Load(config, MemorySource.Random(config, 31), new ForwardOptions { Threads = 2, ResidentBytes = 0 });
        Sums expectedSums = new(), sums = new();
        float[] expected = Run(model, tokens, new LayerwiseOptions(), expectedSums);
        foreach (bool spills in new[] { false, true })
        {
            sums = new Sums();
            List<LinearInputKind> stages = [];
            float[] states = new float[expected.Length];
            using LayerwisePass pass = new(model, WindowCount, WindowLength, new LayerwiseOptions
            {
                BatchTokens = spills ? 7 : 64,
                StateFile = spills ? DiskFileLayer.Instance.CreateScratch(_folder.Path) : null,
                CarryFile = spills ? DiskFileLayer.Instance.CreateScratch(_folder.Path) : null,
            });
            for (int window = 0; window < WindowCount; window++) pass.Embed(window, tokens.AsSpan(window * WindowLength, WindowLength));
            for (int layer = 0; layer < config.NumHiddenLayers; layer++) pass.RunLayerByInputs(layer, sums, stages.Add);
            pass.Finish(sums);
            for (int window = 0; window < WindowCount; window++) pass.ReadStates(window, states.AsSpan(window * WindowLength * config.HiddenSize));
            Assert.True(expected.AsSpan().SequenceEqual(states));
            Assert.True(expectedSums.Equals(sums));
            LinearInputKind[] each = [LinearInputKind.Attention, LinearInputKind.AttentionOutput, LinearInputKind.FeedForward, LinearInputKind.FeedForwardDown];
            Assert.Equal(Enumerable.Range(0, config.NumHiddenLayers).SelectMany(_ => each), stages);
        }
    }

    /// <summary>A matrix replaced before its input goes on acts as if the model had had it.</summary>
    [Fact]
    public void AReplacedMatrixIsTheOneThatTokensGoThrough()
    {
        Qwen2Config config = ForwardTests.Configs["grouped"];
        int[] tokens = ForwardTests.Tokens(config, WindowCount * WindowLength);
        MemorySource source = MemorySource.Random(config, 31), other = MemorySource.Random(config, 77);
        const string name = "model.layers.1.mlp.down_proj.weight";
        MemorySource mixed = MemorySource.Of(source.Tensors.Select(entry => (entry.Name, entry.Shape, (entry.Name == name ? other : source).ReadAll(entry))));
        float[] expected = Run(Qwen2Model.Load(config, mixed, new ForwardOptions { Threads = 1 }), tokens, new LayerwiseOptions(), null), states = new float[expected.Length];
        using LayerwisePass pass = new(Qwen2Model.Load(config, source, new ForwardOptions { Threads = 1, ResidentBytes = 0 }), WindowCount, WindowLength, new LayerwiseOptions());
        for (int window = 0; window < WindowCount; window++) pass.Embed(window, tokens.AsSpan(window * WindowLength, WindowLength));
        for (int layer = 0; layer < config.NumHiddenLayers; layer++)
        {
            int at = layer;
            pass.RunLayerByInputs(layer, new Sums(), kind =>
            {
                if (at == 1 && kind == LinearInputKind.FeedForwardDown) pass.Replace(1, name, other, other.Find(name)!);
            });
        }

        pass.Finish();
        for (int window = 0; window < WindowCount; window++) pass.ReadStates(window, states.AsSpan(window * WindowLength * config.HiddenSize));
        Assert.True(expected.AsSpan().SequenceEqual(states));
        Assert.Throws<ArgumentException>(() => pass.Replace(0, "model.layers.0.none", other, other.Find(name)!));
    }

    [Fact]
    public void WeightsOfALayerAreReadOnceForAllWindows()
    {
        Qwen2Config config = ForwardTests.Configs["grouped"];
        CountingSource source = new(MemorySource.Random(config, 32));
        Qwen2Model model = Qwen2Model.Load(config, source, new ForwardOptions { Threads = 1, ResidentBytes = 0 });
        source.Bytes.Clear();
        Run(model, ForwardTests.Tokens(config, WindowCount * WindowLength), new LayerwiseOptions { BatchTokens = WindowLength }, null);
        foreach (TensorEntry entry in source.Tensors.Where(entry => entry.Name.Contains("_proj.weight", StringComparison.Ordinal))) Assert.Equal(entry.ByteLength, source.Bytes[entry.Name]);
    }

    [Fact]
    public void ActivationsThatAreNotFiniteNameTheTokenOfTheWindow()
    {
        Qwen2Config config = ForwardTests.Configs["grouped"];
        MemorySource sound = MemorySource.Random(config, 33);
        MemorySource source = MemorySource.Of(sound.Tensors.Select(entry =>
        {
            float[] values = sound.ReadAll(entry);
            if (entry.Name == "model.embed_tokens.weight") values[(96 * config.HiddenSize) + 5] = float.NaN;
            return (entry.Name, entry.Shape, values);
        }));
        int[] tokens = new int[WindowCount * WindowLength];
        tokens[(3 * WindowLength) + 17] = 96;
        Qwen2Model model = Qwen2Model.Load(config, source, new ForwardOptions { Threads = 1, ResidentBytes = 0 });
        QuantException error = Assert.Throws<QuantException>(() => Run(model, tokens, new LayerwiseOptions(), null));
        Assert.Equal(ErrorKind.Numeric, error.Kind);
        Assert.Contains("token 17", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void ACancelledLayerKeepsNoWeights()
    {
        Qwen2Config config = ForwardTests.Configs["experts"];
        CountingSource source = new(MemorySource.Random(config, 34));
        Qwen2Model model = Qwen2Model.Load(config, source, new ForwardOptions { Threads = 1, ResidentBytes = 0 });
        using LayerwisePass pass = new(model, WindowCount, WindowLength, new LayerwiseOptions { BatchTokens = WindowLength });
        int[] tokens = ForwardTests.Tokens(config, WindowLength);
        for (int window = 0; window < WindowCount; window++) pass.Embed(window, tokens);
        using CancellationTokenSource cancellation = new();
        int batches = 0;
        Assert.Throws<OperationCanceledException>(() => pass.RunLayer(0, null, _ =>
        {
            if (++batches == 2) cancellation.Cancel();
        }, cancellation.Token));
        Assert.Equal(2, batches);

        source.Bytes.Clear();
        model.Forward(tokens, model.NewCache(WindowLength), new float[WindowLength * config.HiddenSize]);
        Assert.True(source.Bytes["model.layers.0.mlp.down_proj.weight"] > 0, "a weight of the layer was still held");
    }

    private static float[] Run(Qwen2Model model, int[] tokens, LayerwiseOptions options, IActivationObserver? observer)
    {
        using LayerwisePass pass = new(model, WindowCount, WindowLength, options);
        int done = 0;
        for (int window = 0; window < WindowCount; window++) pass.Embed(window, tokens.AsSpan(window * WindowLength, WindowLength));
        for (int layer = 0; layer < model.Config.NumHiddenLayers; layer++) pass.RunLayer(layer, observer, count => done += count);
        pass.Finish(observer);
        Assert.Equal(tokens.Length * model.Config.NumHiddenLayers, done);
        int values = WindowLength * model.Config.HiddenSize;
        float[] states = new float[WindowCount * values];
        for (int window = 0; window < WindowCount; window++) pass.ReadStates(window, states.AsSpan(window * values, values));
        return states;
    }

    /// <summary>Sums that depend on the order of rows within an input.</summary>
    private sealed class Sums : IActivationObserver
    {
        private readonly Dictionary<LinearInput, float[]> _sums = [];

        public void Observe(LinearInput input, ReadOnlySpan<float> rows, int rowCount)
        {
            int width = rows.Length / rowCount;
            if (!_sums.TryGetValue(input, out float[]? sums)) _sums.Add(input, sums = new float[width]);
            for (int i = 0; i < rows.Length; i++) sums[i % width] = (sums[i % width] * 0.99f) + rows[i];
        }

        public bool Equals(Sums other) => _sums.Count == other._sums.Count && _sums.All(pair => pair.Value.AsSpan().SequenceEqual(other._sums[pair.Key]));
    }

    private sealed class CountingSource(ITensorSource inner) : ITensorSource
    {
        public Dictionary<string, long> Bytes { get; } = [];

        public IReadOnlyList<TensorEntry> Tensors => inner.Tensors;

        public TensorEntry? Find(string name) => inner.Find(name);

        public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination)
        {
            Bytes[entry.Name] = Bytes.GetValueOrDefault(entry.Name) + destination.Length;
            inner.ReadRaw(entry, byteOffset, destination);
        }

        public void Dispose() => inner.Dispose();
    }
}
