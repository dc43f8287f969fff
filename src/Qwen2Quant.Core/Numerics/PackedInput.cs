using System.Runtime.CompilerServices;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Numerics.Lanes;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Core.Numerics;

/// <summary>
/// Rows of activations [row count, depth] as the kernels read them: in blocks of <see cref="MatrixProduct.DepthBlock"/> values of depth, row after row, as floats,
/// and as 16-bit integers with one scale for each 32 values (rounding errors up to 2^-15 of the largest of the 32).
/// </summary>
internal sealed unsafe class PackedInput
{
    private const int RowsPerTask = 8;
    private const int Block = MatrixProduct.DepthBlock;
    private const int Run = IntegerForm.ScaleLength;

    private readonly NativeFloats _floats = new();
    private readonly NativeFloats _codes = new();
    private readonly NativeFloats _scales = new();
    private readonly NativeFloats _sums = new();

    /// <summary>Rows with those that fill up the last tile, which are undefined.</summary>
    public int PaddedRows { get; private set; }

    /// <summary>Depth block <paramref name="block"/> from a row on: rows are <see cref="MatrixProduct.PackedStride"/> floats apart.</summary>
    public float* Floats(int block, int row) => At(_floats, block, row, MatrixProduct.PackedStride);

    /// <summary>Codes of depth block <paramref name="block"/> from a row on: rows are <see cref="IntegerPanel.RowStride"/> shorts apart.</summary>
    public short* Codes(int block, int row) => (short*)At(_codes, block, row, IntegerPanel.RowStride / 2);

    /// <summary>Scales of depth block <paramref name="block"/> from a row on: rows are <see cref="IntegerPanel.ScalesPerBlock"/> floats apart.</summary>
    public float* Scales(int block, int row) => At(_scales, block, row, IntegerPanel.ScalesPerBlock);

    /// <summary>Sums of 32 values each, packed as <see cref="Floats"/> with a depth 32 times smaller.</summary>
    public float* Sums(int block, int row) => At(_sums, block, row, MatrixProduct.PackedStride);

    /// <summary>Shorts from one depth block's codes to the next one's.</summary>
    public long CodeStride => (long)PaddedRows * IntegerPanel.RowStride;

    /// <summary>Floats from one depth block's scales to the next one's.</summary>
    public long ScaleStride => (long)PaddedRows * IntegerPanel.ScalesPerBlock;

    /// <summary>Packs rows of <paramref name="depth"/> floats that lie back to back.</summary>
    /// <param name="integers">Also codes, scales and sums; the depth is then a multiple of 32.</param>
    public void Pack(float* a, int rowCount, int depth, bool floats, bool integers, WorkerTeam team, SimdLevel level)
    {
        int blocks = (depth + Block - 1) / Block;
        PaddedRows = rowCount + MatrixProduct.LargestRowTile;
        if (floats) _floats.Get((long)blocks * PaddedRows * MatrixProduct.PackedStride);
        if (integers)
        {
            _codes.Get((long)blocks * PaddedRows * (IntegerPanel.RowStride / 2));
            _scales.Get((long)blocks * PaddedRows * IntegerPanel.ScalesPerBlock);
            _sums.Get(((depth / Run) + Block - 1) / Block * (long)PaddedRows * MatrixProduct.PackedStride);
        }

        team.Run((rowCount + RowsPerTask - 1) / RowsPerTask, task =>
        {
            int end = Math.Min(rowCount, (task + 1) * RowsPerTask);
            for (int row = task * RowsPerTask; row < end; row++)
            {
                float* source = a + ((long)row * depth);
                if (floats) CopyRow(source, depth, row);
                if (!integers) continue;
                if (level >= SimdLevel.Avx512) QuantizeRow<Lanes512>(source, depth, row);
                else if (level >= SimdLevel.Avx2) QuantizeRow<Lanes256>(source, depth, row);
                else if (level >= SimdLevel.Vector128) QuantizeRow<Lanes128>(source, depth, row);
                else QuantizeRow<Lanes1>(source, depth, row);
            }
        });
    }

    private float* At(NativeFloats storage, int block, int row, int rowFloats) => storage.Get(0) + ((((long)block * PaddedRows) + row) * rowFloats);

    private void CopyRow(float* source, int depth, int row)
    {
        for (int k = 0; k < depth; k += Block)
        {
            int length = Math.Min(Block, depth - k);
            new ReadOnlySpan<float>(source + k, length).CopyTo(new Span<float>(Floats(k / Block, row), length));
        }
    }

    private void QuantizeRow<T>(float* source, int depth, int row) where T : unmanaged, ILanes<T>
    {
        // Adding 1.5 x 2^23 leaves the nearest integer, ties to even, in the low bits of the sum.
        T magic = T.Broadcast(12582912);
        T low = T.BroadcastInt(0xffff);
        T sign = T.BroadcastInt(0x7fffffff);
        for (int k = 0; k < depth; k += Run)
        {
            T largest = T.Broadcast(0), sum = T.Broadcast(0);
            for (int i = 0; i < Run; i += T.Width)
            {
                T value = T.Load(in source[k + i]);
                largest = T.Max(value & sign, largest);
                sum += value;
            }

            float peak = T.MaxAcross(largest);
            // The reciprocal of a denormal peak overflows; such values round to nothing beside any other.
            float inverse = peak > 1e-30f ? IntegerPanel.LargestInput / peak : 0;
            T factor = T.Broadcast(inverse);
            short* codes = Codes(k / Block, row) + (k % Block);
            for (int i = 0; i < Run; i += T.Width) T.StoreUShorts(((T.Load(in source[k + i]) * factor) + magic) & low, ref Unsafe.AsRef<ushort>(codes + i));
            Scales(k / Block, row)[k % Block / Run] = inverse == 0 ? 0 : peak / IntegerPanel.LargestInput;
            int run = k / Run;
            Sums(run / Block, row)[run % Block] = T.SumAcross(sum);
        }
    }
}
