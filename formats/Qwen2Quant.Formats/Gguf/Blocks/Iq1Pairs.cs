using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>
/// The codebook of the IQ1 types as pairs of half rows, each half a number of 0 to 80: its codes as base-3 digits, the first the lowest. The rows of a first half are a run
/// of second halves, lengthened to a multiple of four by its last one.
/// </summary>
internal sealed class Iq1Pairs<T> where T : unmanaged, ILanes<T>
{
    public const int Halves = 81;

    private static Iq1Pairs<T>? _shared;

    private readonly ushort[] _starts = new ushort[Halves + 1];
    private readonly ushort[] _offsets;
    private readonly ushort[] _rows;

    private Iq1Pairs()
    {
        List<(int Second, ushort Row)>[] runs = [.. Enumerable.Range(0, Halves).Select(_ => new List<(int, ushort)>())];
        for (ushort row = 0; row < Iq1Grid.RowCount; row++)
        {
            ReadOnlySpan<byte> codes = Iq1Grid.Shared.Row(row);
            runs[Half(codes[..4])].Add((Half(codes[4..]), row));
        }

        for (int i = 0; i < Halves; i++)
        {
            while (runs[i].Count % 4 != 0) runs[i].Add(runs[i][^1]);
            _starts[i + 1] = (ushort)(_starts[i] + runs[i].Count);
        }

        _offsets = [.. runs.SelectMany(run => run).Select(pair => (ushort)(pair.Second * T.Width))];
        _rows = [.. runs.SelectMany(run => run).Select(pair => pair.Row)];
    }

    /// <summary>Made when first used. Two threads may both make one; either serves.</summary>
    public static Iq1Pairs<T> Shared => _shared ??= new();

    /// <summary>Where the run of each first half starts, and where the last ends.</summary>
    public ReadOnlySpan<ushort> Starts => _starts;

    /// <summary>Place of each second half in a table of lanes, in floats.</summary>
    public ReadOnlySpan<ushort> Offsets => _offsets;

    /// <summary>The row that each entry of <see cref="Offsets"/> completes.</summary>
    public ReadOnlySpan<ushort> Rows => _rows;

    private static int Half(ReadOnlySpan<byte> codes) => codes[0] + (3 * codes[1]) + (9 * codes[2]) + (27 * codes[3]);
}
