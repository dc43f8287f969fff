using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;

namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>What an IQ1 block of 32 granules stores.</summary>
internal ref struct Iq1Fields
{
    /// <summary>A half.</summary>
    public float D;

    /// <summary>One odd factor of 1 to 15 for each group.</summary>
    public Span<int> Multiples;

    /// <summary>Row of the codebook of each granule.</summary>
    public Span<ushort> Rows;

    /// <summary>Whether the delta of each granule is -1/8 instead of +1/8.</summary>
    public Span<bool> HasMinus;
}

/// <summary>What tells IQ1_S and IQ1_M apart.</summary>
internal interface IIq1Layout
{
    static abstract string Name { get; }

    static abstract int BlockBytes { get; }

    /// <summary>Groups of a block, each with a scale: 8 or 16.</summary>
    static abstract int Groups { get; }

    /// <summary>Granules of a group: 4 or 2.</summary>
    static abstract int GroupGranules { get; }

    /// <summary>Granules that share a delta: those of a group, or 1.</summary>
    static abstract int DeltaGranules { get; }

    static abstract void Read(ref readonly byte block, ref Iq1Fields fields);

    /// <summary>Writes every byte of the block.</summary>
    static abstract void Write(Iq1Fields fields, ref byte block);
}

/// <summary>
/// ggml's <c>block_iq1_s</c> and <c>block_iq1_m</c>: granules of 8 values on a codebook of -1, 0, +1; value <c>(d * multiple) * (grid + delta)</c>. Parameters are d, the groups'
/// multiples and the deltas.
/// </summary>
internal readonly struct Iq1Block<TLayout> : ICodebookFormat where TLayout : struct, IIq1Layout
{
    private const int Granules = 32;

    private static readonly float[] PlusLevels = [-1 + Codebooks.Iq1Delta, Codebooks.Iq1Delta, 1 + Codebooks.Iq1Delta];
    private static readonly float[] MinusLevels = [-1 - Codebooks.Iq1Delta, -Codebooks.Iq1Delta, 1 - Codebooks.Iq1Delta];

    public static string Name => TLayout.Name;
    public static int BlockValues => 256;
    public static int BlockBytes => TLayout.BlockBytes;
    public static int BatchBlocks => Search.Stride / TLayout.Groups;

    /// <summary>A scale is at most 8 times the extreme, whose smallest level is 1/8; a d that ggml fits anew may be as large, times 1.1125.</summary>
    public static float LargestMagnitude => 65504f / 9;

    public static GridShape Shape => new(256, Iq1Grid.RowLength * TLayout.DeltaGranules, Iq1Grid.RowLength, 3, 1 + TLayout.Groups + (Granules / TLayout.DeltaGranules));

    public static void DecodeBlock<T>(ref readonly byte block, ref float values) where T : unmanaged, ILanes<T>
    {
        if (T.Width > Iq1Grid.RowLength)
        {
            DecodeBlock<Lanes256>(in block, ref values);
            return;
        }

        Iq1Fields fields = new() { Multiples = stackalloc int[TLayout.Groups], Rows = stackalloc ushort[Granules], HasMinus = stackalloc bool[Granules] };
        TLayout.Read(in block, ref fields);
        ref float book = ref MemoryMarshal.GetReference(Codebooks.Iq1.Rows);
        for (int g = 0; g < Granules; g++)
        {
            T step = T.Broadcast(fields.D * fields.Multiples[g / TLayout.GroupGranules]);
            T delta = T.Broadcast(fields.HasMinus[g] ? -Codebooks.Iq1Delta : Codebooks.Iq1Delta);
            for (int j = 0; j < Iq1Grid.RowLength; j += T.Width)
            {
                T row = Block32.At<T>(ref book, (fields.Rows[g] * Iq1Grid.RowLength) + j);
                T.Store(step * (row + delta), ref Unsafe.Add(ref values, (g * Iq1Grid.RowLength) + j));
            }
        }
    }

    /// <summary>Where ggml has no path, IQ1_S without importance, the reference is the normal search.</summary>
    public static void EncodeBatch<T>(ReadOnlySpan<float> values, ReadOnlySpan<float> importance, float rowVariance, Effort effort, ref byte blocks) where T : unmanaged, ILanes<T>
    {
        Iq1Fields fields = new() { Multiples = stackalloc int[TLayout.Groups], Rows = stackalloc ushort[Granules], HasMinus = stackalloc bool[Granules] };
        bool hasReference = TLayout.DeltaGranules == 1 || !importance.IsEmpty;
        if (effort != Effort.Reference || !hasReference)
        {
            Iq1Search<TLayout, T>.Encode(values, importance, effort, fields, ref blocks);
            return;
        }

        for (int n = 0; n < values.Length / 256; n++)
        {
            Iq1Reference.Find<TLayout>(values.Slice(n * 256, 256), importance.IsEmpty ? importance : importance.Slice(n * 256, 256), ref fields);
            TLayout.Write(fields, ref Unsafe.Add(ref blocks, n * BlockBytes));
        }
    }

    public static void Fit(ReadOnlySpan<float> block, ReadOnlySpan<float> importance, Effort effort, Span<float> parameters)
    {
        Span<byte> bytes = stackalloc byte[BlockBytes];
        Span<byte> codes = stackalloc byte[256];
        SearchedFit.Encode<Iq1Block<TLayout>>(block, importance, effort, bytes);
        Unpack(bytes, codes, parameters);
    }

    /// <summary>Multiples are odd; a delta has its granules' codes chosen with it.</summary>
    public static float StoreParameter(int parameter, float value) =>
        parameter == 0 ? StoredHalf.Round(value) : parameter <= TLayout.Groups ? (2 * Parameters.Integer((value - 1) / 2, 0, 7)) + 1 : float.NaN;

    public static (int First, int Count) SubBlocksOf(int parameter)
    {
        if (parameter == 0 || parameter > TLayout.Groups) return Parameters.OfBlock;
        int subBlocks = TLayout.GroupGranules / TLayout.DeltaGranules;
        return ((parameter - 1) * subBlocks, subBlocks);
    }

    public static Levels GetLevels(ReadOnlySpan<float> parameters, int subBlock)
    {
        int group = subBlock * TLayout.DeltaGranules / TLayout.GroupGranules;
        return new Levels(0, parameters[0] * parameters[1 + group], 3, 0, parameters[1 + TLayout.Groups + subBlock] < 0 ? MinusLevels : PlusLevels);
    }

    /// <exception cref="ArgumentException">The codes of a granule are not in the codebook.</exception>
    public static void Pack(ReadOnlySpan<byte> codes, ReadOnlySpan<float> parameters, Span<byte> block)
    {
        Iq1Fields fields = new() { D = parameters[0], Multiples = stackalloc int[TLayout.Groups], Rows = stackalloc ushort[Granules], HasMinus = stackalloc bool[Granules] };
        for (int b = 0; b < TLayout.Groups; b++) fields.Multiples[b] = (int)parameters[1 + b];
        for (int g = 0; g < Granules; g++)
        {
            int row = Iq1Grid.Shared.IndexOf(Iq1Grid.Key(codes.Slice(g * Iq1Grid.RowLength, Iq1Grid.RowLength)));
            if (row < 0) throw new ArgumentException($"the codes of granule {g} are not in {Name}'s codebook", nameof(codes));
            fields.Rows[g] = (ushort)row;
            fields.HasMinus[g] = parameters[1 + TLayout.Groups + (g / TLayout.DeltaGranules)] < 0;
        }

        TLayout.Write(fields, ref block[0]);
    }

    public static void Unpack(ReadOnlySpan<byte> block, Span<byte> codes, Span<float> parameters)
    {
        Iq1Fields fields = new() { Multiples = stackalloc int[TLayout.Groups], Rows = stackalloc ushort[Granules], HasMinus = stackalloc bool[Granules] };
        TLayout.Read(in block[0], ref fields);
        parameters[0] = fields.D;
        for (int b = 0; b < TLayout.Groups; b++) parameters[1 + b] = fields.Multiples[b];
        for (int g = 0; g < Granules; g++)
        {
            Iq1Grid.Shared.Row(fields.Rows[g]).CopyTo(codes[(g * Iq1Grid.RowLength)..]);
            parameters[1 + TLayout.Groups + (g / TLayout.DeltaGranules)] = fields.HasMinus[g] ? -Codebooks.Iq1Delta : Codebooks.Iq1Delta;
        }
    }

    public static void Round(ReadOnlySpan<float> granule, ReadOnlySpan<float> metric, ReadOnlySpan<float> parameters, int firstIndex, Span<byte> codes) =>
        Iq1Grid.Shared.Nearest(granule, metric, GetLevels(parameters, firstIndex / Shape.SubBlockLength), codes);
}
