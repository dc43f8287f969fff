using System.Globalization;
using Qwen2Quant.Core.Encoding;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Quantization;

/// <summary>Each value by itself to a nearby level, under parameters fitted to its block: the type's own encoder.</summary>
public sealed class RoundToNearest : ISolver
{
    public string Name => "rtn";

    public bool Supports(ElementType type, Effort effort) => type.CanEncode;

    public void Encode(RowSlab slab, ElementType type, Effort effort, Span<byte> encoded, ErrorSums? errors = null)
    {
        if (!Supports(type, effort)) throw new NotSupportedException($"{Name} does not write {type.Name} with effort {effort}");
        int rowBytes = checked((int)type.ByteCount(slab.RowLength));
        if (encoded.Length != (long)slab.RowCount * rowBytes) throw new ArgumentException($"{encoded.Length} bytes for {slab.RowCount} rows of {rowBytes}", nameof(encoded));
        for (int first = 0; first < slab.RowCount; first += type.RowsPerBlock)
        {
            int end = Math.Min(first + type.RowsPerBlock, slab.RowCount);
            // The rows are in the cache for the encoder that follows.
            for (int row = first; row < end; row++)
            {
                if (!(FiniteCheck.LargestMagnitude(slab.Values.Slice(row * slab.RowLength, slab.RowLength)) <= type.LargestMagnitude)) throw OutOfRange(slab, row, type);
            }

            type.EncodeRows(slab.Values[(first * slab.RowLength)..(end * slab.RowLength)], slab.RowLength, slab.Importance, effort, encoded[(first * rowBytes)..(end * rowBytes)]);
        }

        errors?.Add(slab, type, encoded);
    }

    private static QuantException OutOfRange(RowSlab slab, int row, ElementType type)
    {
        ReadOnlySpan<float> values = slab.Values.Slice(row * slab.RowLength, slab.RowLength);
        int column = FiniteCheck.FindNonFinite(values);
        bool finite = column < 0;
        if (finite)
        {
            column = 0;
            while (MathF.Abs(values[column]) <= type.LargestMagnitude) column++;
        }

        float value = values[column];
        string place = string.Create(CultureInfo.InvariantCulture, $"{value:r} in row {slab.FirstRow + row}, column {column}");
        return finite
            ? new QuantException(ErrorKind.Numeric, "a value is too large for its type")
            {
                Rule = type.IsQuantized ? NumericRules.ScaleWithinRange : NumericRules.WithinRange,
                Tensor = slab.Tensor,
                Found = place,
                Expected = string.Create(CultureInfo.InvariantCulture, $"at most {type.LargestMagnitude:r} for {type.Name}"),
                Remedy = "Keep this tensor in F32 or BF16",
            }
            : new QuantException(ErrorKind.Numeric, "a value is not finite")
            {
                Rule = float.IsNaN(value) ? NumericRules.NoNan : NumericRules.NoInfinity,
                Tensor = slab.Tensor,
                Found = place,
                Remedy = "The checkpoint is damaged or was saved from a run that diverged",
            };
    }
}
