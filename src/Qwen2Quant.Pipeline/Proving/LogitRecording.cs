using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Proving;

/// <summary>Where the logits of a model go as llama-perplexity's base file.</summary>
/// <param name="Path">Path of the output.</param>
/// <param name="Force">Replaces an existing one.</param>
public sealed record LogitTarget(string Path, bool Force = false);

/// <summary>
/// A model whose logits are written to a file while a run asks for them: each scored row once, in the order of the text.
/// The file gets its name in <see cref="Publish"/>, when it is whole and has been read back.
/// </summary>
internal sealed class LogitRecording : ILogitModel, IDisposable
{
    private readonly ILogitModel _model;
    private readonly LogitTarget _target;
    private readonly RunContext _context;
    private readonly LogitFileLayout _layout;
    private readonly PendingOutput _output;
    private readonly IWriteFile _file;
    private readonly byte[] _records;
    private readonly List<(long ByteOffset, int ByteCount, ulong Checksum)> _written = [];
    private long _byteOffset;

    private LogitRecording(ILogitModel model, WindowPlan windows, LogitTarget target, LogitFileLayout layout, RunContext context)
    {
        _model = model;
        _target = target;
        _context = context;
        _layout = layout;
        _records = new byte[Math.Clamp(LogitFile.BufferBytes / layout.RecordBytes, 1, windows.ScoredPerWindow) * layout.RecordBytes];
        _byteOffset = layout.HeaderBytes;
        _output = PendingOutput.Begin(context.Files, target.Path, OutputKind.File);
        try
        {
            _file = _output.Create(new PlannedFile(Path.GetFileName(target.Path), layout.Header(windows), layout.ByteLength, []));
        }
        catch
        {
            _output.Dispose();
            throw;
        }
    }

    public int VocabularySize => _model.VocabularySize;

    public int HiddenSize => _model.HiddenSize;

    /// <summary>Bytes that it keeps while the model runs.</summary>
    public long HeldBytes => _records.Length;

    /// <summary>Refuses a target that cannot be published, before anything is computed for it.</summary>
    /// <param name="models">The models that run; their files are inputs.</param>
    public static void CheckTarget(LogitTarget target, IReadOnlyList<Checkpoint> models, EvaluationText text, WindowOptions options, RunContext context)
    {
        if (options.Protocol != ScoringProtocol.Llama)
        {
            throw new QuantException(ErrorKind.Usage, "a logit file holds the second half of each window") { Path = target.Path, Found = "--protocol full", Remedy = "Leave out --protocol." };
        }

        Check(target, models, text, plannedBytes: 0, context);
    }

    /// <summary>Begins the file.</summary>
    public static LogitRecording Begin(ILogitModel model, IReadOnlyList<Checkpoint> models, EvaluationText text, WindowPlan windows, LogitTarget target, RunContext context)
    {
        LogitFileLayout layout = new(windows.Context, model.VocabularySize, windows.WindowCount);
        Check(target, models, text, layout.ByteLength, context);
        return new LogitRecording(model, windows, target, layout, context);
    }

    public void Forward(ReadOnlySpan<int> tokens, Span<float> hidden) => _model.Forward(tokens, hidden);

    public IWindowStates? RunLayers(WindowPlan plan, IProgressSink progress, string title, CancellationToken cancellation) => _model.RunLayers(plan, progress, title, cancellation);

    public unsafe void Logits(ReadOnlySpan<float> hidden, int rowCount, Span<float> logits)
    {
        _model.Logits(hidden, rowCount, logits);
        int vocabulary = VocabularySize, recordBytes = (int)_layout.RecordBytes;
        int rowsHeld = _records.Length / recordBytes;
        ParallelOptions parallel = new() { MaxDegreeOfParallelism = _context.Threads };
        for (int first = 0; first < rowCount; first += rowsHeld)
        {
            int rows = Math.Min(rowsHeld, rowCount - first);
            fixed (float* source = logits[(first * vocabulary)..])
            {
                float* values = source;
                Parallel.For(0, rows, parallel, row => LogitRecord.Encode(new ReadOnlySpan<float>(values + ((long)row * vocabulary), vocabulary), _records.AsSpan(row * recordBytes, recordBytes)));
            }

            Write(_records.AsSpan(0, rows * recordBytes));
        }
    }

    /// <summary>Flushes the file, reads it back, and gives it its name.</summary>
    /// <exception cref="QuantException">The disk failed, or the file does not read back as written.</exception>
    public void Publish()
    {
        if (_byteOffset != _layout.ByteLength) throw new InvalidOperationException($"{_byteOffset} bytes of {_layout.ByteLength} were recorded");
        _output.Flush();
        Verify();
        _context.Cancellation.ThrowIfCancellationRequested();
        _output.Publish();
        _context.Events.Report(new QuantEvent("logits-saved", $"{TextEscape.Escape(_target.Path)}: logits of {_layout.ChunkCount} windows, {_layout.ByteLength} bytes"));
    }

    public void Dispose() => _output.Dispose();

    private static void Check(LogitTarget target, IReadOnlyList<Checkpoint> models, EvaluationText text, long plannedBytes, RunContext context)
    {
        IEnumerable<string> inputs = models.Where(model => model.Location.Kind != ModelKind.BuiltIn).SelectMany(model => model.WeightPaths.Append(model.Location.Path));
        if (context.Files.FileExists(text.Name)) inputs = inputs.Append(text.Name);
        PendingOutput.CheckTarget(context.Files, target.Path, OutputKind.File, target.Force, [.. inputs], plannedBytes);
    }

    private void Write(ReadOnlySpan<byte> records)
    {
        try
        {
            _file.Write(_byteOffset, records);
            _file.StartWriteBack(_byteOffset, records.Length);
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            throw PendingOutput.Failed(_target.Path, error);
        }

        _written.Add((_byteOffset, records.Length, SlabChecksum.Compute(records)));
        _byteOffset += records.Length;
    }

    private void Verify()
    {
        LogitFile.Open(_context.Files, _output.TemporaryPath).Dispose();
        using IReadFile file = _context.Files.OpenTyped(_output.TemporaryPath);
        foreach ((long byteOffset, int byteCount, ulong checksum) in _written)
        {
            _context.Cancellation.ThrowIfCancellationRequested();
            Span<byte> records = _records.AsSpan(0, byteCount);
            file.ReadExactly(byteOffset, records);
            if (SlabChecksum.Compute(records) == checksum) continue;
            throw new QuantException(ErrorKind.Verification, "the output does not read back as written") { Path = _target.Path, ByteOffset = byteOffset, Remedy = "Check the disk." };
        }
    }
}
