using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Quantization;

/// <summary>
/// GPTQ (Frantar et al. 2022) on any grid: the type's own encoder fits the parameters of blocks, with the Hessian's diagonal as importance; then codes are chosen
/// column by column, or granule by granule, so that each makes up for the errors before it; then coordinate descent goes over them again.
/// A row that this leaves worse keeps the encoder's codes. Bytes depend neither on threads nor on how rows are cut into slabs.
/// </summary>
/// <param name="hessian">Of the linear's inputs; it makes this a solver for one linear, unlike the stateless ones of <see cref="SolverCatalog"/>.</param>
public sealed unsafe class GptqSolver(GptqHessian hessian)
{
    private const int RowsPerTask = 96;

    /// <summary>As <c>--method</c> and the report spell it.</summary>
    public const string Name = "gptq";

    /// <summary>Columns of <paramref name="type"/> that are chosen together; 0 for types without a grid.</summary>
    public static int GranuleLength(ElementType type) => type is IBlockCodec codec ? codec.Shape.GranuleLength : 0;

    public bool Supports(ElementType type, Effort effort) => type.CanEncode && GranuleLength(type) == hessian.GranuleLength;

    /// <summary>On the calling thread. The slab's importance is not used: the Hessian's diagonal takes its place.</summary>
    public void Encode(RowSlab slab, ElementType type, Effort effort, Span<byte> encoded, ErrorSums? errors = null)
    {
        Solve(slab, type, effort, encoded, new WorkerTeam(1));
        errors?.Add(slab, type, encoded);
    }

    /// <summary>As <see cref="Encode"/>, with rows on the threads of <paramref name="team"/>.</summary>
    /// <returns>What the rows lost under the Hessian, without its damping.</returns>
    public GptqErrors Solve(RowSlab slab, ElementType type, Effort effort, Span<byte> encoded, WorkerTeam team)
    {
        if (!Supports(type, effort)) throw new NotSupportedException($"{Name} with granules of {hessian.GranuleLength} does not write {type.Name}");
        if (slab.RowLength != hessian.Width) throw new ArgumentException($"rows of {slab.RowLength} under a Hessian of {hessian.Width}", nameof(slab));
        int width = slab.RowLength, rowCount = slab.RowCount;
        int rowBytes = checked((int)type.ByteCount(width));
        if (encoded.Length != (long)rowCount * rowBytes) throw new ArgumentException($"{encoded.Length} bytes for {rowCount} rows of {rowBytes}", nameof(encoded));
        GptqErrors[] rowErrors = new GptqErrors[rowCount];
        (string tensor, long firstRow) = (slab.Tensor, slab.FirstRow);
        fixed (float* pinnedValues = slab.Values)
        fixed (byte* pinnedBytes = encoded)
        {
            float* values = pinnedValues;
            byte* bytes = pinnedBytes;
            int rowsPerTask = Math.Max(RowsPerTask / type.RowsPerBlock, 1) * type.RowsPerBlock;
            team.Run((rowCount + rowsPerTask - 1) / rowsPerTask, task =>
            {
                int first = task * rowsPerTask, count = Math.Min(rowsPerTask, rowCount - first);
                RowSlab rows = new(tensor, firstRow + first, width, new ReadOnlySpan<float>(values + ((long)first * width), count * width), hessian.Importance);
                Span<byte> blocks = new(bytes + ((long)first * rowBytes), count * rowBytes);
                SolverCatalog.RoundToNearest.Encode(rows, type, effort, blocks);
                using GptqRows solving = new(hessian, (IBlockCodec)type, type.BytesPerBlock, rows);
                solving.Solve(blocks, rowErrors.AsSpan(first, count));
            });
        }

        GptqErrors sum = default;
        foreach (GptqErrors row in rowErrors) sum += row;
        return sum;
    }
}
