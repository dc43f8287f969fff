using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Publishing;

namespace Qwen2Quant.Pipeline.Planning;

/// <summary>One output tensor: where it goes and what it is made of.</summary>
/// <param name="FileIndex">Index into the plan's files.</param>
/// <param name="Target">Type, shape and offset.</param>
/// <param name="RequestedType">What the recipe asked for; differs from the target's type after a fallback.</param>
/// <param name="Parts">Source tensors whose rows, one after the other, are the rows of the output (one, or an expert each).</param>
public sealed record PlanItem(int FileIndex, PlannedTensor Target, ElementType RequestedType, IReadOnlyList<TensorEntry> Parts)
{
    public string Name => Target.Tensor.Name;

    /// <summary>Where the rows go when the layout scatters them; the target then names the tensor, and its offset is that of the codes.</summary>
    public IScatteredTarget? Scattered { get; init; }

    /// <summary>The bytes are taken over whatever they mean, also those of types that are sized only and values that are not finite.</summary>
    public bool IsVerbatim { get; init; }

    /// <summary>The integers of the parts are taken over: the target's type holds their very values.</summary>
    public bool IsExact { get; init; }

    /// <summary>Where the importance of its columns is found, unless it is under the item's own name: a GGUF name, and which of how many parts of that tensor this is.</summary>
    public (string Name, int Part, int PartCount)? ImportanceOf { get; init; }

    /// <summary>Bytes in the output's files.</summary>
    public long ByteLength => Scattered?.ByteLength ?? Target.Tensor.ByteLength;

    /// <summary>True when the bytes are taken over as they are.</summary>
    public bool IsCopy => Parts.All(part => ReferenceEquals(part.Type, Target.Tensor.Type));

    /// <summary>True when values that were rounded once are rounded again.</summary>
    public bool IsRequantized => Target.Tensor.Type.IsQuantized && !IsCopy && Parts.Any(part => part.Type.IsQuantized);
}

/// <summary>A small file of an output folder, known at plan time.</summary>
public sealed record CompanionFile(string Name, byte[] Bytes);

/// <summary>
/// Everything about an output that can be known without reading a weight: this is what <c>--dry-run</c> prints
/// and what the runner executes.
/// </summary>
public sealed record ConversionPlan
{
    /// <summary>Final path of the output; of a split one the path of its first part.</summary>
    public required string Target { get; init; }

    public required bool IsFolder { get; init; }
    public required IReadOnlyList<PlannedFile> Files { get; init; }
    public required IReadOnlyList<CompanionFile> Companions { get; init; }
    public required IReadOnlyList<PlanItem> Items { get; init; }

    /// <summary>Weights for the encoders, or null for none.</summary>
    public Importance? Importance { get; init; }

    /// <summary>What decides the statistics that the plan rests on: a hash, or <c>none</c>.</summary>
    public string Statistics { get; init; } = "none";

    /// <summary>Collects the statistics that the plan lacks, keeping them in a folder, and gives the whole plan, with the same files; null where nothing is lacking.</summary>
    internal Func<string, ConversionPlan>? Complete { get; init; }

    /// <summary>Substitutions and whatever else differs from what was asked.</summary>
    public required IReadOnlyList<QuantEvent> Events { get; init; }

    /// <summary>Why the plan can be looked at and not run, or null.</summary>
    public QuantException? Obstacle { get; init; }

    public OutputKind Kind => IsFolder ? OutputKind.Folder : Files.Count > 1 ? OutputKind.Parts : OutputKind.File;

    /// <summary>Bytes of all files together.</summary>
    public long ByteLength => Files.Sum(file => file.ByteLength) + Companions.Sum(file => (long)file.Bytes.Length);

    public long ValueCount => Items.Sum(item => item.Target.Tensor.Shape.ValueCount);

    /// <summary>Bits of tensor data for each weight.</summary>
    public double BitsPerWeight => 8.0 * Items.Sum(item => item.ByteLength) / ValueCount;
}
