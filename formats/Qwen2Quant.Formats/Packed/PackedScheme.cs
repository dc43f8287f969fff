using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Packed.Awq;
using Qwen2Quant.Formats.Packed.CompressedTensors;
using Qwen2Quant.Formats.Packed.Gptq;
using Qwen2Quant.Formats.Packed.Mlx;

namespace Qwen2Quant.Formats.Packed;

/// <summary>In which order a solver visits inputs, and what of it a checkpoint shows.</summary>
public enum ColumnVisits
{
    /// <summary>As they lie.</summary>
    Natural,

    /// <summary>By activation, in groups that stay where they are: the file looks as without.</summary>
    Activation,

    /// <summary>By activation, and groups are formed in that order: the file names each input's group.</summary>
    PermutedGroups,
}

/// <summary>What a type may depend on besides shapes.</summary>
/// <param name="Weights">The largest magnitude of the matrices that readers fuse, where <see cref="PackedScheme.NeedsLargest"/> is true.</param>
/// <param name="Inputs">That of what they take, where <see cref="PackedScheme.NeedsInputs"/> is true.</param>
public readonly record struct Magnitudes(float Weights, float Inputs);

/// <summary>A packed checkpoint as <c>--to</c> spells it: which type its matrices get and how they lie in the folder. <see cref="object.ToString"/> gives the spelling.</summary>
public abstract record PackedScheme
{
    private static readonly (string Forms, Func<string, PackedScheme?> Parse)[] Families =
    [
        (GptqScheme.Forms, GptqScheme.Parse),
        (AwqScheme.Forms, AwqScheme.Parse),
        (CtScheme.Forms, CtScheme.Parse),
        (Fp8Scheme.Forms, Fp8Scheme.Parse),
        (MlxScheme.Forms, MlxScheme.Parse),
    ];

    /// <summary>What there is, one line for each layout, for messages.</summary>
    public static IReadOnlyList<string> AllForms { get; } = [.. Families.Select(family => family.Forms)];

    public abstract PackedLayout Layout { get; }

    /// <summary>The method that the name implies, as <c>--method</c> spells it.</summary>
    public abstract string DefaultMethod { get; }

    /// <summary>Inputs of a group for messages; -1 for whole rows.</summary>
    public abstract int GroupSize { get; }

    public virtual ColumnVisits Visits => ColumnVisits.Natural;

    /// <summary>What safetensors files say in their metadata for <c>format</c>.</summary>
    public virtual string FileFormat => "pt";

    /// <summary>True when an index says how many parameters the model has, as if none were packed.</summary>
    public virtual bool CountsParameters => false;

    /// <summary>True when embedding and output matrix are packed too.</summary>
    public virtual bool PacksAll => false;

    /// <summary>True when the type of a matrix depends on the largest magnitude of the matrices that readers fuse it with.</summary>
    public virtual bool NeedsLargest => false;

    /// <summary>True when the type of a matrix depends on the largest magnitude of its inputs, which a calibration text shows.</summary>
    public virtual bool NeedsInputs => false;

    /// <summary>The type of biases of packed modules; null for that of the other plain tensors.</summary>
    public virtual ElementType? BiasType => null;

    /// <summary>The library that reads it first, as the Hub spells that.</summary>
    public virtual string LibraryName => "transformers";

    /// <summary>Commands that run a folder of that name.</summary>
    public virtual IEnumerable<string> Commands(string folder) =>
    [
        $"vllm serve {folder}", $"python -m sglang.launch_server --model-path {folder}",
        .. RunsInTransformers ? [$"text-generation-launcher --model-id {folder}", $"transformers chat {folder}"] : Array.Empty<string>(),
    ];

    /// <summary>True where tensor-parallel engines cut its matrices.</summary>
    public virtual bool IsCutInParallel => true;

    /// <summary>The readers that the scheme leaves out, a sentence for each group of them.</summary>
    public virtual IEnumerable<string> ReaderNotes => [];

    /// <summary>The scheme that a text names, in any case; null when it begins as none.</summary>
    /// <exception cref="QuantException">It begins as one and is none.</exception>
    public static PackedScheme? Parse(string text) => Families.Select(family => family.Parse(text)).FirstOrDefault(scheme => scheme is not null);

    /// <summary>The scheme of single modules under this one, as <c>--tensor-type</c> spells it.</summary>
    /// <exception cref="QuantException">Usage: there is none of that spelling, or the layout has one scheme for all modules.</exception>
    public virtual PackedScheme OfModule(string text) => throw new QuantException(ErrorKind.Usage, $"the modules of {this} have one type") { Found = text, Expected = "plain", Remedy = "Leave --tensor-type out, or let it keep modules plain." };

    /// <summary>True for a type of the source that the scheme has, whatever the scale of its whole matrix is: such matrices are copied.</summary>
    /// <param name="scales">As the plain type of <see cref="TypeFor"/>.</param>
    public virtual bool Takes(ElementType type, ElementType scales) => false;

    /// <summary>The element type of a matrix with rows of that length; null where the scheme has none.</summary>
    /// <param name="plain">Type of plain tensors, which scales of some layouts have too.</param>
    public abstract ElementType? TypeFor(long rowLength, ElementType plain, Magnitudes largest);

    /// <summary>True where Transformers and text-generation-inference run a folder too.</summary>
    private protected virtual bool RunsInTransformers => false;

    /// <summary>Inputs of a group in rows of that length; null where there are none, or not a multiple.</summary>
    private protected int? GroupIn(long rowLength, int multiple = 1)
    {
        long group = GroupSize == -1 ? rowLength : GroupSize;
        return group is 0 or > int.MaxValue || group % multiple != 0 ? null : (int)group;
    }
}
