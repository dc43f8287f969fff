using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.RegularExpressions;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed.Mlx;

/// <summary>An MLX scheme as <c>--to</c> spells it: <c>mlx:w4g64</c>.</summary>
/// <param name="Bits">2, 3, 4, 5, 6 or 8.</param>
/// <param name="GroupSize">Inputs of a group, 32, 64 or 128.</param>
public sealed partial record MlxScheme(int Bits, int GroupSize) : PackedScheme
{
    public const string Prefix = "mlx:";

    /// <summary>What there is, for messages.</summary>
    public const string Forms = "mlx:w4g64 with 2, 3, 4, 5, 6 or 8 bits and groups of 32, 64 or 128";

    public override PackedLayout Layout => MlxLayout.Instance;

    public override string DefaultMethod => "rtn";

    public override int GroupSize { get; } = GroupSize;

    public override string FileFormat => "mlx";

    public override bool CountsParameters => true;

    public override bool PacksAll => true;

    public override string LibraryName => "mlx";

    public override bool IsCutInParallel => false;

    public override IEnumerable<string> Commands(string folder) => [$"mlx_lm.generate --model {folder} --prompt \"...\"", $"mlx_lm.server --model {folder}"];

    /// <inheritdoc cref="PackedScheme.Parse"/>
    public static new MlxScheme? Parse(string text) => text.StartsWith(Prefix, StringComparison.OrdinalIgnoreCase) ? Read(text[Prefix.Length..], text, Forms) : null;

    public override PackedScheme OfModule(string text) => Read(text, text, "plain, or w4g64 with 2, 3, 4, 5, 6 or 8 bits and groups of 32, 64 or 128");

    public override ElementType? TypeFor(long rowLength, ElementType plain, Magnitudes largest) => AffineGridType.Of(Bits, GroupSize, plain);

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Prefix}w{Bits}g{GroupSize}");

    private static MlxScheme Read(string form, string text, string forms)
    {
        Match match = Form().Match(form.ToLowerInvariant());
        if (!match.Success) throw new QuantException(ErrorKind.Usage, "there is no such scheme") { Found = text, Expected = forms };
        return new MlxScheme(int.Parse(match.Groups["bits"].ValueSpan, CultureInfo.InvariantCulture), int.Parse(match.Groups["group"].ValueSpan, CultureInfo.InvariantCulture));
    }

    [GeneratedRegex("^w(?<bits>[234568])g(?<group>32|64|128)$", RegexOptions.CultureInvariant)]
    private static partial Regex Form();
}

/// <summary>MLX's layout: rows lie one after the other, codes, scales and biases apart; experts are stacked.</summary>
internal sealed class MlxLayout : PackedLayout
{
    public static MlxLayout Instance { get; } = new();

    public override bool Fits(ElementType type, Shape shape) => type is AffineGridType grid && shape.Rank == 2 && shape[1] % grid.GroupLength == 0;

    public override (string Name, int Index)? StackOf(string name) => MlxExperts.StackOf(name);

    public override IReadOnlyList<OutputTensor> Parts(string name, ElementType type, Shape shape) => MlxMatrix.Parts(Module(name), (AffineGridType)type, shape);

    public override IScatteredTarget Target(ElementType type, Shape shape, IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts) => new MlxTarget((AffineGridType)type, shape, parts);

    private sealed class MlxTarget(AffineGridType type, Shape shape, IReadOnlyList<(int FileIndex, PlannedTensor Tensor)> parts) : PackedTarget(parts)
    {
        public override int RowGranule => 1;

        public override void Write(IReadOnlyList<IWriteFile> files, long firstRow, Span<byte> rows, ReadOnlySpan<int> columnOrder)
        {
            RequireNoOrder(columnOrder);
            int blockCount = rows.Length / type.BytesPerBlock, codeBytes = type.BytesPerBlock - AffineGridType.CodesOffset;
            byte[] codes = new byte[blockCount * codeBytes];
            ushort[] scales = new ushort[blockCount], biases = new ushort[blockCount];
            for (int at = 0; at < blockCount; at++)
            {
                ReadOnlySpan<byte> block = rows.Slice(at * type.BytesPerBlock, type.BytesPerBlock);
                scales[at] = MemoryMarshal.Read<ushort>(block);
                biases[at] = MemoryMarshal.Read<ushort>(block[sizeof(ushort)..]);
                block[AffineGridType.CodesOffset..].CopyTo(codes.AsSpan(at * codeBytes));
            }

            long first = firstRow * (shape[1] / type.GroupLength);
            WritePart(files, 0, first * codeBytes, codes);
            WritePart(files, 1, first * sizeof(ushort), MemoryMarshal.AsBytes<ushort>(scales));
            WritePart(files, 2, first * sizeof(ushort), MemoryMarshal.AsBytes<ushort>(biases));
        }
    }
}
