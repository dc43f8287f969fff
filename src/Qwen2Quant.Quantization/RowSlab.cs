namespace Qwen2Quant.Quantization;

/// <summary>Consecutive rows of one tensor as floats.</summary>
public readonly ref struct RowSlab
{
    /// <param name="tensor">Name for errors.</param>
    /// <param name="firstRow">Index in the tensor of the first row, for errors.</param>
    /// <param name="values">Whole rows, back to back.</param>
    /// <param name="importance">Empty, or one non-negative weight for each column.</param>
    /// <exception cref="ArgumentException">The values are not whole rows, or the weights not one a column.</exception>
    public RowSlab(string tensor, long firstRow, int rowLength, ReadOnlySpan<float> values, ReadOnlySpan<float> importance = default)
    {
        if (rowLength <= 0 || values.Length % rowLength != 0) throw new ArgumentException($"{values.Length} values are not whole rows of {rowLength}", nameof(values));
        if (importance.Length != 0 && importance.Length != rowLength) throw new ArgumentException($"{importance.Length} weights for rows of {rowLength}", nameof(importance));
        (Tensor, FirstRow, RowLength) = (tensor, firstRow, rowLength);
        Values = values;
        Importance = importance;
    }

    public string Tensor { get; }
    public long FirstRow { get; }
    public int RowLength { get; }
    public ReadOnlySpan<float> Values { get; }
    public ReadOnlySpan<float> Importance { get; }

    public int RowCount => Values.Length / RowLength;
}
