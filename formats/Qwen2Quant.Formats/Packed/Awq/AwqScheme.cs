using System.Globalization;
using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Awq;

/// <summary>An AWQ scheme as <c>--to</c> spells it: <c>awq:w4g128</c>.</summary>
/// <param name="GroupSize">Inputs of a group, 32, 64 or 128; -1 for whole rows.</param>
public sealed partial record AwqScheme(int GroupSize) : PackedScheme
{
    public const string Prefix = "awq:";

    /// <summary>What there is, for messages.</summary>
    public const string Forms = "awq:w4g128 with groups of 32, 64, 128 or -1 (whole rows)";

    public override PackedLayout Layout => AwqLayout.Instance;

    public override string DefaultMethod => "awq";

    public override int GroupSize { get; } = GroupSize;

    public override ElementType? BiasType => PlainTypes.F16;

    private protected override bool RunsInTransformers => true;

    /// <inheritdoc cref="PackedScheme.Parse"/>
    public static new AwqScheme? Parse(string text)
    {
        if (!text.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase)) return null;
        Match match = Form().Match(text[Prefix.Length..].ToLowerInvariant());
        if (!match.Success) throw new QuantException(ErrorKind.Usage, "there is no such scheme") { Found = text, Expected = Forms };
        return new AwqScheme(int.Parse(match.Groups["group"].ValueSpan, CultureInfo.InvariantCulture));
    }

    public override ElementType? TypeFor(long rowLength, ElementType plain, Magnitudes largest) =>
        GroupIn(rowLength, BitFields.WordRun) is { } group ? IntegerGridType.Of(4, group, isSymmetric: false, PlainTypes.F16) : null;

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Prefix}w4g{GroupSize}");

    [GeneratedRegex("^w4g(?<group>32|64|128|-1)$", RegexOptions.CultureInvariant)]
    private static partial Regex Form();
}
