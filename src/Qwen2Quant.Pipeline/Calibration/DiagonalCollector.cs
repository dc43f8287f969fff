using Qwen2Quant.Core.Running;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Model;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Calibration;

/// <summary>Sums the squares of every linear input of a forward pass.</summary>
public sealed class DiagonalCollector(int threads) : IActivationObserver
{
    private readonly WorkerTeam _team = new(threads);
    private readonly Dictionary<LinearInput, ChannelSquares> _squares = [];

    /// <summary>Bytes that the sums of a model take at most, their entries and the file made of them included.</summary>
    public static long ByteCount(TensorCatalogue catalogue) =>
        (sizeof(double) + (3 * sizeof(float))) * catalogue.Tensors.Where(tensor => tensor.Shape.Rank == 2).Sum(tensor => tensor.Shape.RowLength);

    public void Observe(LinearInput input, ReadOnlySpan<float> rows, int rowCount)
    {
        if (!_squares.TryGetValue(input, out ChannelSquares? squares)) _squares.Add(input, squares = new ChannelSquares(rows.Length / rowCount));
        squares.Add(rows, rowCount, _team);
    }

    /// <summary>The sums of an input, or null when no row of it was seen.</summary>
    public ChannelSquares? Find(LinearInput input) => _squares.GetValueOrDefault(input);

    /// <summary>The sums under the names of GGUF tensors: every matrix inside the layers, experts stacked.</summary>
    /// <param name="processOutput">Also the output matrix; of a tied model the embedding, which serves as one.</param>
    public IReadOnlyList<ImatrixEntry> Entries(TensorCatalogue catalogue, bool processOutput)
    {
        List<ImatrixEntry> entries = [];
        foreach (GgufTensor tensor in GgufNames.Plan(catalogue))
        {
            LinearInput?[] inputs = [.. tensor.Parts.Select(part => processOutput && part.Role == TensorRole.TokenEmbedding && catalogue.Config.TieWordEmbeddings ? LinearInput.Output : LinearInput.Of(part))];
            if (inputs[0] is null || (inputs[0] == LinearInput.Output && !processOutput)) continue;
            int width = checked((int)tensor.Shape.RowLength);
            float[] sums = new float[checked(width * inputs.Length)];
            long[] counts = new long[inputs.Length];
            for (int slice = 0; slice < inputs.Length; slice++)
            {
                if (Find(inputs[slice]!.Value) is not { } squares) continue;
                for (int channel = 0; channel < width; channel++) sums[(slice * width) + channel] = (float)squares.Sums[channel];
                counts[slice] = squares.RowCount;
            }

            entries.Add(new ImatrixEntry(tensor.Name, sums, counts));
        }

        entries.Sort((a, b) => string.CompareOrdinal(a.Name, b.Name));
        return entries;
    }
}
