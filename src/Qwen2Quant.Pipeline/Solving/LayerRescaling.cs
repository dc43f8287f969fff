using System.Numerics.Tensors;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>Rescales the channels of layers before their codes are chosen: finds scales, and rewrites the tensors that they are folded into.</summary>
internal sealed class LayerRescaling
{
    /// <summary>Rows of all consumers of a fold that are enough to tell scales apart, and of one of them.</summary>
    private const int SampleRows = 4096, SampleRowsOfOne = 512, LeastSampleRows = 32;

    private readonly TensorCatalogue _catalogue;
    private readonly SolvingJob _job;
    private readonly Effort _effort;
    private readonly WorkerTeam _team;
    private readonly StageTimes _times;
    private readonly Dictionary<string, ElementType> _types;
    private readonly Dictionary<LinearInput, float[]> _divisors = [];
    private double _castSquares, _squares;

    public LayerRescaling(TensorCatalogue catalogue, ITensorSource source, ConversionPlan plan, SolvingJob job, Effort effort, WorkerTeam team, StageTimes times)
    {
        (_catalogue, _job, _effort, _team, _times) = (catalogue, job, effort, team, times);
        _types = plan.Items.SelectMany(item => item.Parts.Select(part => (part.Name, item.Target.Tensor.Type))).ToDictionary(pair => pair.Name, pair => pair.Type, StringComparer.Ordinal);
        Tensors = new RewrittenTensors(source);
    }

    /// <summary>The source as it is rewritten so far.</summary>
    public RewrittenTensors Tensors { get; }

    /// <summary>Every fold so far.</summary>
    public List<FoldedScales> Folds { get; } = [];

    /// <summary>What storing rewritten tensors in their plain types changed: root of the squared change over the squared values; 0 where none was.</summary>
    public double CastError => _castSquares == 0 ? 0 : Math.Sqrt(_castSquares / _squares);

    /// <summary>Bytes that the search takes beside the Gram matrix of an input of that width.</summary>
    public static long SearchBytes(int width) => InputStatistics.ByteCount(width) + (3L * SampleRows * width * sizeof(float));

    /// <summary>The scales of a layer's folds.</summary>
    /// <param name="gram">The Gram matrix of an input; null when no token reached it.</param>
    /// <param name="largest">The largest magnitude of each channel of an input; for SmoothQuant.</param>
    /// <param name="leastTokens">What an expert's input must have seen.</param>
    public IReadOnlyList<FoldedScales> Find(int layer, IReadOnlyCollection<SolvedTarget> targets, Func<LinearInput, GramMatrix?> gram, Func<LinearInput, float[]?> largest, double leastTokens)
    {
        using IDisposable timed = _times.Measure(Stage.Rescale);
        Dictionary<string, SolvedTarget> byName = targets.ToDictionary(target => target.Tensor.Name, StringComparer.Ordinal);
        List<FoldedScales> found = [];
        foreach (ScaleFold fold in ScaleFold.Of(_catalogue, layer, _job.Method.Rescaling == Rescaling.SmoothQuant))
        {
            SolvedTarget[] consumers = [.. fold.Consumers.Select(consumer => byName.GetValueOrDefault(consumer.Name)!).Where(target => target is not null)];
            if (consumers.Length == 0) continue;
            if (_job.Method.Rescaling == Rescaling.SmoothQuant)
            {
                if (largest(fold.Activity) is { } maxima) found.Add(Smooth(fold, consumers, maxima));
            }
            else if (gram(fold.Activity) is { } sums && (fold.Activity.Expert < 0 || sums.RowCount >= leastTokens))
            {
                found.Add(Search(fold, consumers, sums));
            }
        }

        return found;
    }

    /// <summary>Folds scales into the tensors of a layer, and into those that the pass multiplies.</summary>
    /// <param name="pass">Null where no model runs.</param>
    public void Apply(int layer, IReadOnlyList<FoldedScales> scales, IReadOnlyCollection<SolvedTarget> targets, LayerwisePass? pass)
    {
        _divisors.Clear();
        HashSet<string> touched = [];
        foreach (ScaleFold fold in ScaleFold.Of(_catalogue, layer, normsOnly: false))
        {
            if (scales.FirstOrDefault(known => known.Name == fold.Name) is not { } own) continue;
            Folds.Add(own);
            float[] inverse = [.. own.Scales.Select(scale => 1 / scale)], columns = fold.Channels.Length == 0 ? own.Scales : [.. fold.Channels.Select(channel => own.Scales[channel])];
            foreach (string producer in fold.Producers) Tensors.MultiplyRows(producer, inverse);
            foreach (CanonicalTensor consumer in fold.Consumers)
            {
                Tensors.MultiplyColumns(consumer.Name, columns);
                if (LinearInput.Of(consumer) is { } input) _divisors[input] = columns;
            }

            touched.UnionWith(fold.Producers);
            touched.UnionWith(fold.Consumers.Select(consumer => consumer.Name));
        }

        HashSet<string> solved = [.. targets.Select(target => target.Tensor.Name)];
        foreach (string name in touched.Order(StringComparer.Ordinal))
        {
            TensorEntry entry = Tensors.Find(name)!;
            if (solved.Contains(name))
            {
                pass?.Replace(layer, name, Tensors, entry);
                continue;
            }

            float[] values = Cast(entry);
            if (entry.Shape.Rank == 1) pass?.ReplaceVector(layer, name, values);
            else pass?.Replace(layer, name, new DecodedMatrix(entry, values), entry);
        }
    }

    /// <summary>What the channels of an input of the layer at work are divided by; null where they are not.</summary>
    public float[]? Divisors(LinearInput input) => _divisors.GetValueOrDefault(input);

    /// <summary>Makes the sums of an input those of its rescaled channels.</summary>
    public GramMatrix? Rescale(LinearInput input, GramMatrix? gram)
    {
        if (Divisors(input) is { } divisors) gram?.DivideInputs(divisors);
        return gram;
    }

    private FoldedScales Search(ScaleFold fold, SolvedTarget[] consumers, GramMatrix gram)
    {
        InputStatistics input = new(gram, _team);
        int rowsOfOne = Math.Clamp(SampleRows / consumers.Length, LeastSampleRows, SampleRowsOfOne);
        AwqScales scales = new AwqSearch(input, Effort.Fast < _effort ? Effort.Fast : _effort, _team).Find([.. consumers.Select(consumer => Sample(consumer, rowsOfOne))], fold.Channels);
        return new FoldedScales(fold.Name, scales.Scales, scales.Ratio, scales.UsesWeights, scales.LossBefore, scales.LossAfter);
    }

    private AwqConsumer Sample(SolvedTarget target, int most)
    {
        long rowCount = target.Source.Shape.RowCount;
        int count = (int)Math.Min(rowCount, most), width = checked((int)target.Source.Shape.RowLength);
        float[] rows = new float[count * width];
        _team.Run(count, i => Tensors.ReadRows(target.Source, i * rowCount / count, 1, rows.AsSpan(i * width, width)));
        return new AwqConsumer(rows, (double)rowCount / count, target.Type);
    }

    /// <summary>SmoothQuant, equation 4: <c>max|x|^a / max|w|^(1 - a)</c>, floored at 1e-5 as llm-compressor does.</summary>
    private FoldedScales Smooth(ScaleFold fold, SolvedTarget[] consumers, float[] activations)
    {
        const float least = 1e-5f;
        float[] weights = new float[activations.Length], row = new float[activations.Length];
        foreach (SolvedTarget consumer in consumers)
        {
            for (long i = 0; i < consumer.Source.Shape.RowCount; i++)
            {
                Tensors.ReadRows(consumer.Source, i, 1, row);
                TensorPrimitives.MaxMagnitude(weights, row, weights);
            }
        }

        float[] scales = new float[activations.Length];
        for (int i = 0; i < scales.Length; i++)
        {
            double scale = Math.Pow(activations[i], _job.Smoothing) / (weights[i] == 0 ? 1 : Math.Pow(Math.Abs(weights[i]), 1 - _job.Smoothing));
            scales[i] = activations[i] == 0 ? 1 : (float)Math.Max(scale, least);
        }

        return new FoldedScales(fold.Name, scales, _job.Smoothing, true, 0, 0);
    }

    /// <summary>The values of a plain tensor as they will be stored.</summary>
    private float[] Cast(TensorEntry entry)
    {
        float[] exact = Tensors.ReadAll(entry), stored = new float[exact.Length];
        ElementType type = _types[entry.Name];
        int rowLength = checked((int)entry.Shape.RowLength);
        byte[] row = new byte[type.ByteCount(rowLength)];
        for (int start = 0; start < exact.Length; start += rowLength)
        {
            type.EncodeRow(exact.AsSpan(start, rowLength), default, _effort, row);
            type.Decode(row, stored.AsSpan(start, rowLength));
        }

        for (int i = 0; i < exact.Length; i++)
        {
            double change = stored[i] - exact[i];
            _castSquares += change * change;
            _squares += (double)exact[i] * exact[i];
        }

        return stored;
    }
}
