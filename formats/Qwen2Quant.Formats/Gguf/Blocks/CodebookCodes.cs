namespace Qwen2Quant.Formats.Gguf.Blocks;

/// <summary>What tells the five types on a codebook with signs apart.</summary>
internal interface ICodebookLayout
{
    static abstract string Name { get; }

    static abstract int BlockBytes { get; }

    static abstract Codebook Codebook { get; }

    /// <summary>Values of a row of the codebook: 4 or 8.</summary>
    static abstract int RowLength { get; }

    /// <summary>Parts of the 256 values that have a scale each: 8 or 16.</summary>
    static abstract int SubBlocks { get; }

    /// <summary>True when only an even number of eight values may be negative.</summary>
    static abstract bool HasEvenSigns { get; }

    /// <summary>The level on which the root mean square of normally distributed values lies under their best step.</summary>
    static abstract float TypicalLevel { get; }

    static abstract ReferenceScan Reference { get; }

    /// <summary>What a level is multiplied by: a multiple of d that grows evenly with the scale, 0 to 15.</summary>
    static abstract float Step(float d, int scale);

    static abstract int IndexAt(ref readonly byte block, int row);

    /// <summary>Signs of eight values, one bit each, set where negative.</summary>
    static abstract int SignsAt(ref readonly byte block, int eight);

    static abstract int ScaleAt(ref readonly byte block, int subBlock);

    /// <summary>Writes all bytes of a block but the first two, which are the half d.</summary>
    static abstract void Store(in CodebookCodes codes, Span<byte> block);
}

/// <summary>The integers of one block of 256 values: the codebook's row of each 4 or 8, the signs of each 8, the scale of each sub-block.</summary>
internal readonly ref struct CodebookCodes(Span<ushort> indices, Span<byte> signs, Span<byte> scales)
{
    public Span<ushort> Indices { get; } = indices;

    public Span<byte> Signs { get; } = signs;

    public Span<byte> Scales { get; } = scales;

    /// <summary>Four times seven signs, of 32 values.</summary>
    public uint SevenBitSigns(int thirtyTwo)
    {
        ReadOnlySpan<byte> signs = Signs.Slice(4 * thirtyTwo, 4);
        return (signs[0] & 127u) | ((signs[1] & 127u) << 7) | ((signs[2] & 127u) << 14) | ((signs[3] & 127u) << 21);
    }

    public byte ScalePair(int pair) => (byte)(Scales[2 * pair] | (Scales[(2 * pair) + 1] << 4));
}
