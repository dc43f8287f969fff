using Qwen2Quant.Core.Encoding;

namespace Qwen2Quant.Core.Numerics;

/// <summary>One packed row of activations in the order of a form's <see cref="IntegerForm.Dots"/>. For one thread at a time.</summary>
internal sealed unsafe class ArrangedRow
{
    private const int Runs = IntegerForm.RunsPerBlock;
    private const int BlockLength = Runs * IntegerForm.ScaleLength;

    // Rows of weights that are multiplied at once; each has its own copy of what belongs to a run.
    private const int Copies = 4;

    private readonly NativeFloats _codes = new();
    private readonly NativeFloats _scales = new();
    private readonly NativeFloats _zeros = new();
    private readonly NativeFloats _sums = new();

    public IntegerInput Input => new((short*)_codes.Get(0), _scales.Get(0), (int*)_zeros.Get(0), _sums.Get(0));

    /// <summary>Takes over row <paramref name="row"/> of <paramref name="input"/>.</summary>
    public void Fill(PackedInput input, int row, int depth, IntegerForm form)
    {
        int blocks = (depth + BlockLength - 1) / BlockLength;
        short* codes = (short*)_codes.Get(blocks * BlockLength / 2);
        float* scales = _scales.Get(blocks * Runs * Copies), sums = _sums.Get(blocks * Runs * Copies);
        int* zeros = (int*)_zeros.Get(blocks * Runs * Copies);
        float* rowSums = input.Sums(0, row);
        for (int block = 0; block < blocks; block++)
        {
            short* from = input.Codes(block, row);
            float* fromScales = input.Scales(block, row);
            int length = Math.Min(BlockLength, depth - (block * BlockLength));
            new Span<short>(from + length, BlockLength - length).Clear();
            form.Arrange(from, codes + (block * BlockLength));
            for (int run = 0; run < Runs; run++)
            {
                bool inside = run * IntegerForm.ScaleLength < length;
                int zero = 0, first = ((block * Runs) + run) * Copies;
                if (form.Zero != 0)
                {
                    for (int i = run * IntegerForm.ScaleLength; i < (run + 1) * IntegerForm.ScaleLength; i++) zero += from[i];
                }

                new Span<float>(scales + first, Copies).Fill(inside ? fromScales[run] : 0);
                new Span<float>(sums + first, Copies).Fill(inside ? rowSums[(block * Runs) + run] : 0);
                new Span<int>(zeros + first, Copies).Fill(zero * form.Zero);
            }
        }
    }
}
