using System.Globalization;
using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Gguf;
using Qwen2Quant.Formats.Packed.Float;

namespace Qwen2Quant.Formats.Packed.CompressedTensors;

/// <summary>What a preset of llm-compressor stores.</summary>
/// <param name="Name">As llm-compressor spells it.</param>
/// <param name="Format">The configuration's <c>format</c>.</param>
/// <param name="GroupSize">Of the preset; -1 for whole rows, 0 for whole matrices.</param>
/// <param name="HasGroups">Another group size may be asked for.</param>
/// <param name="Activations">int or float where activations are quantized to 8 bits, else null.</param>
/// <param name="TileRows">Rows that share scales.</param>
/// <param name="IsStatic">By a scale that is stored; else token by token as they come.</param>
public sealed record CtPreset(string Name, string Format, int Bits, bool IsFloat, bool IsSymmetric, int GroupSize, bool HasGroups, string? Activations, bool IsStatic = false, int TileRows = 1)
{
    public static IReadOnlyList<CtPreset> All { get; } =
    [
        new("W4A16", "pack-quantized", 4, false, true, 128, true, null),
        new("W4A16_ASYM", "pack-quantized", 4, false, false, 128, true, null),
        new("W8A16", "pack-quantized", 8, false, true, 128, true, null),
        new("W8A8", "int-quantized", 8, false, true, -1, false, "int"),
        new("FP8", "float-quantized", 8, true, true, 0, false, "float", IsStatic: true),
        new("FP8_DYNAMIC", "float-quantized", 8, true, true, -1, false, "float"),
        new("FP8_BLOCK", "float-quantized", 8, true, true, Fp8Scheme.TileLength, false, "float", TileRows: Fp8Scheme.TileLength),
        new("NVFP4A16", "nvfp4-pack-quantized", 4, true, true, Nvfp4Type.GroupLength, false, null),
        new("MXFP4A16", "mxfp4-pack-quantized", 4, true, true, 32, false, null),
        new("MXFP8A16", "mxfp8-quantized", 8, true, true, 32, false, null),
    ];
}

/// <summary>A compressed-tensors scheme as <c>--to</c> spells it: <c>compressed-tensors:W4A16[-g64][-actorder]</c>.</summary>
/// <param name="Visits">Natural, or by activation in groups that stay where they are.</param>
public sealed partial record CtScheme(CtPreset Preset, int GroupSize, ColumnVisits Visits = ColumnVisits.Natural) : PackedScheme
{
    public const string Prefix = "compressed-tensors:";

    private static readonly ElementType Mxfp4 = GgmlTypes.Find("MXFP4")!.Element;

    /// <summary>What there is, for messages.</summary>
    public static string Forms { get; } = $"{Prefix}{string.Join('|', CtPreset.All.Select(preset => preset.Name))}, W4A16 and W8A16 with [-g32|-g64|-g128|-g-1], integers with [-actorder]";

    public override PackedLayout Layout => new CtLayout(Preset.Format == "int-quantized");

    public override string DefaultMethod => Visits == ColumnVisits.Natural ? "rtn" : "gptq";

    public override int GroupSize { get; } = GroupSize;

    public override ColumnVisits Visits { get; } = Visits;

    public override bool NeedsLargest => IsNvfp4 || GroupSize == 0;

    public override bool NeedsInputs => Preset.IsStatic;

    /// <summary>Scales are powers of two.</summary>
    public bool IsMicroscaled => Preset.Format.StartsWith("mx", StringComparison.Ordinal);

    public bool IsNvfp4 => Preset.Format.StartsWith("nvfp4", StringComparison.Ordinal);

    /// <inheritdoc cref="PackedScheme.Parse"/>
    public static new CtScheme? Parse(string text)
    {
        if (!text.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase)) return null;
        Match match = Form().Match(text[Prefix.Length..]);
        CtPreset? preset = CtPreset.All.FirstOrDefault(known => known.Name.Equals(match.Groups["preset"].Value, StringComparison.OrdinalIgnoreCase));
        bool hasGroup = match.Groups["group"].Success, isOrdered = match.Groups["order"].Success;
        if (preset is null || (hasGroup && !preset.HasGroups) || (isOrdered && preset.IsFloat)) throw new QuantException(ErrorKind.Usage, "there is no such scheme") { Found = text, Expected = Forms };
        return new CtScheme(preset, hasGroup ? int.Parse(match.Groups["group"].ValueSpan, CultureInfo.InvariantCulture) : preset.GroupSize, isOrdered ? ColumnVisits.Activation : ColumnVisits.Natural);
    }

    public override bool Takes(ElementType type, ElementType scales) => IsNvfp4 ? type is Nvfp4Type : GroupSize == 0 && type is Fp8TensorType { InputScale: > 0 } fp8 && ReferenceEquals(fp8.ScaleType, scales);

    public override ElementType? TypeFor(long rowLength, ElementType plain, Magnitudes largest)
    {
        if (GroupSize == 0) return Fp8TensorType.Fitting(largest.Weights, plain, largest.Inputs);
        if (GroupIn(rowLength) is not { } group) return null;
        if (IsNvfp4) return Nvfp4Type.Of(largest.Weights > 0 ? Core.Numerics.Float8.LargestE4M3 * 6 / largest.Weights : 1);
        if (IsMicroscaled && Preset.Bits == 4) return Mxfp4;
        if (Preset.IsFloat) return Fp8Type.Of(group, IsMicroscaled ? PlainTypes.U8 : plain, Preset.TileRows);
        return group % BitFields.WordRun != 0 ? null : IntegerGridType.Of(Preset.Bits, group, Preset.IsSymmetric, plain);
    }

    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture, $"{Prefix}{Preset.Name}{(GroupSize == Preset.GroupSize ? "" : $"-g{GroupSize}")}{(Visits == ColumnVisits.Natural ? "" : "-actorder")}");

    [GeneratedRegex("^(?<preset>[A-Za-z0-9_]+?)(-g(?<group>32|64|128|-1))?(?<order>-actorder)?$", RegexOptions.CultureInvariant | RegexOptions.IgnoreCase)]
    private static partial Regex Form();
}
