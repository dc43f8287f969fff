using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Planning;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>A source in which solved matrices take the place of their originals; it closes neither.</summary>
internal sealed class SolvedOverlay(SolvedTensors solved, ITensorSource originals) : ITensorSource
{
    public IReadOnlyList<TensorEntry> Tensors => [.. originals.Tensors.Select(entry => solved.Find(entry.Name) ?? entry)];

    /// <summary>The plan with what is here as what its outputs are made of.</summary>
    public ConversionPlan Apply(ConversionPlan plan) => plan with
    {
        Items = [.. plan.Items.Select(item => item with { Parts = [.. item.Parts.Select(part => Find(part.Name) ?? part)] })],
    };

    /// <summary>As <see cref="SolvedTensors.ColumnOrder"/>.</summary>
    public ReadOnlySpan<int> ColumnOrder(string name) => solved.ColumnOrder(name);

    public TensorEntry? Find(string name) => solved.Find(name) ?? originals.Find(name);

    public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination)
    {
        ITensorSource source = ReferenceEquals(solved.Find(entry.Name), entry) ? solved : originals;
        source.ReadRaw(entry, byteOffset, destination);
    }

    public void Dispose()
    {
    }
}
