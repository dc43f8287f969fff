using System.Globalization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Validation.Numerics;

namespace Qwen2Quant.Validation;

/// <summary>
/// A base read from a file. Its divergence is llama-perplexity's (<c>--kl-divergence</c>): the sum of p (ln p - ln q) over the tokens
/// with ln p above -16, p not normalized again; the 16 bits may bring it a little below zero.
/// </summary>
internal sealed class LogitFileRows : IBaseRows
{
    /// <summary>
    /// Codes are off by half a step of 16 / 65535 nats at most, and of a vocabulary of a million tokens 11 % can lie 16 nats below the largest:
    /// probabilities that sum to anything beyond are no rounding.
    /// </summary>
    private const double LeastSum = 0.8, GreatestSum = 1.01;

    private readonly LogitFile _file;
    private readonly WindowPlan _plan;
    private readonly int _vocabularySize;
    private readonly int _recordBytes;
    private readonly byte[] _records;
    private readonly float[] _rows;
    private readonly ParallelOptions _parallel;
    private int _chunk;
    private int _firstPosition;

    public LogitFileRows(LogitFile file, WindowPlan plan, RunOptions options)
    {
        _file = file;
        _plan = plan;
        _vocabularySize = file.Layout.VocabularySize;
        _recordBytes = checked((int)file.Layout.RecordBytes);
        RowsPerChunk = Math.Min(options.RowsPerChunk(_vocabularySize, plan.ScoredPerWindow), RowsHeld(file.Layout, plan));
        _records = new byte[checked(RowsPerChunk * _recordBytes)];
        _rows = new float[checked(RowsPerChunk * _vocabularySize)];
        _parallel = new ParallelOptions { MaxDegreeOfParallelism = options.Threads };
    }

    public int RowsPerChunk { get; }

    /// <summary>Bytes that rows of a file take at most.</summary>
    public static long HeldBytes(LogitFileLayout layout, WindowPlan plan) => RowsHeld(layout, plan) * (layout.RecordBytes + ((long)sizeof(float) * layout.VocabularySize));

    public void RunLayers(IProgressSink progress, string title, CancellationToken cancellation)
    {
    }

    public void Forward(int index) => _chunk = _plan.WindowNumber(index);

    public void ComputeRows(int firstPosition, int rowCount)
    {
        _firstPosition = firstPosition;
        _file.Read(_chunk, firstPosition, rowCount, _records);
        Parallel.For(0, rowCount, _parallel, row => LogitRecord.DecodeCounted(Record(row), _rows.AsSpan(row * _vocabularySize, _vocabularySize)));
    }

    public ReadOnlySpan<float> Row(int row) => _rows.AsSpan(row * _vocabularySize, _vocabularySize);

    public RowScore Score(int row, ReadOnlySpan<float> candidateLogits, int expected, SimdLevel level)
    {
        float candidateMaximum = SoftmaxRows.Maximum(candidateLogits, level);
        if (float.IsNaN(candidateMaximum)) return new RowScore(0, double.NaN, 0, false, 0, 0);
        DivergenceSums sums = DivergenceRows.Sum(Row(row), 0, candidateLogits, candidateMaximum, level);
        double logSum = Math.Log(sums.CandidateSum);
        float baseMaximum = SoftmaxRows.Maximum(Row(row), level);
        bool isDistribution = sums.BaseSum is > LeastSum and < GreatestSum;
        return new RowScore(
            isDistribution ? -LogitRecord.Decode(Record(row), expected) : double.NaN,
            logSum - (candidateLogits[expected] - candidateMaximum),
            sums.Weighted + (sums.BaseSum * logSum),
            isDistribution && SoftmaxRows.IndexOf(Row(row), baseMaximum) == SoftmaxRows.IndexOf(candidateLogits, candidateMaximum),
            0,
            logSum + candidateMaximum);
    }

    public QuantException NotFinite(int row)
    {
        float[] none = new float[_vocabularySize];
        double sum = DivergenceRows.Sum(Row(row), 0, none, 0).BaseSum;
        int position = _firstPosition + row;
        return new QuantException(ErrorKind.InvalidInput, "a record is no probability distribution")
        {
            Rule = LogitRules.Distributions,
            Path = _file.Path,
            ByteOffset = _file.Layout.RecordOffset(_chunk, position),
            Found = string.Create(CultureInfo.InvariantCulture, $"probabilities that sum to {sum:G4} at window {_chunk}, position {position}"),
            Expected = "1",
            Remedy = "The file is damaged; make it again.",
        };
    }

    public void Dispose()
    {
    }

    private static int RowsHeld(LogitFileLayout layout, WindowPlan plan) => (int)Math.Clamp(LogitFile.BufferBytes / layout.RecordBytes, 1, plan.ScoredPerWindow);

    private ReadOnlySpan<byte> Record(int row) => _records.AsSpan(row * _recordBytes, _recordBytes);
}
