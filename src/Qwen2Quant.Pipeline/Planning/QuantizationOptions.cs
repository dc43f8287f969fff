using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Recipes;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>What a user may ask of a quantization beside the recipe.</summary>
public sealed record QuantizationOptions
{
    public RecipeOptions Types { get; init; } = new();

    /// <summary>Types of single modules of packed folders.</summary>
    public IReadOnlyList<ModuleOverride> Modules { get; init; } = [];

    /// <summary>Weights for the encoders, or null for none. With them some mixtures differ, and some types are possible only then.</summary>
    public Importance? Importance { get; init; }

    public bool HasImatrix => Importance is not null || IsSolved;

    /// <summary>The matrices of layers are solved under Hessians, which are an importance and more.</summary>
    public bool IsSolved { get; init; }

    /// <summary>GPTQ's damping as a share of the mean diagonal, which packed checkpoints state.</summary>
    public double Damping { get; init; } = 0.01;

    /// <summary>Quantizes a source that is quantized already.</summary>
    public bool AllowRequantize { get; init; }

    /// <summary>Matrices that the source has plain stay so in packed folders.</summary>
    public bool KeepsPlain { get; init; }

    /// <summary>Of scales where a packed layout does not say; null for that of plain tensors.</summary>
    public ElementType? ScaleType { get; init; }

    /// <summary>The largest magnitude of each linear input, for schemes that store scales of inputs.</summary>
    public IReadOnlyDictionary<LinearInput, float>? LargestInputs { get; init; }

    /// <summary>Cuts the output where the source is cut.</summary>
    public bool KeepSplit { get; init; }

    /// <summary>Set after all other keys, in this order.</summary>
    public IReadOnlyList<MetadataOverride> Metadata { get; init; } = [];
}
