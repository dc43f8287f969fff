using System.Globalization;
using System.Text.Json;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Reports;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Pipeline.Solving;

/// <summary>
/// The encoded matrices of a run that goes layer by layer, in the <see cref="WorkFolder"/> of its output: a file for each layer with their bytes, and one that says what they
/// are, written last. As a source it gives what was encoded.
/// </summary>
internal sealed class SolvedTensors : ITensorSource
{
    private const long LargestJson = 64L << 20;

    private readonly IFileLayer _files;
    private readonly string _folder;
    private readonly Dictionary<string, (SolvedPart Part, TensorEntry Entry)> _byName = new(StringComparer.Ordinal);
    private readonly List<TensorEntry> _entries = [];
    private readonly Dictionary<int, IReadFile> _layers = [];
    private readonly List<(SolvedPart Part, byte[] Bytes)> _pending = [];
    private int _layer;

    /// <param name="folder">An existing folder, which layers that an equal run solved may be in.</param>
    public SolvedTensors(IFileLayer files, string folder)
    {
        _files = files;
        _folder = folder;
    }

    public IReadOnlyList<TensorEntry> Tensors => _entries;

    public TensorEntry? Find(string name) => _byName.TryGetValue(name, out (SolvedPart Part, TensorEntry Entry) found) ? found.Entry : null;

    /// <summary>The column of a matrix at each place of its rows; empty where they lie in their order, or for one that was not solved here.</summary>
    public ReadOnlySpan<int> ColumnOrder(string name) => _byName.TryGetValue(name, out (SolvedPart Part, TensorEntry Entry) found) ? found.Part.ColumnOrder : default;

    /// <summary>A solved matrix as a model multiplies it, and the source to read it from: decoded into the order of its columns where they are permuted.</summary>
    public (ITensorSource Source, TensorEntry Entry) Multiplied(string name)
    {
        TensorEntry entry = _byName[name].Entry;
        ReadOnlySpan<int> order = ColumnOrder(name);
        if (order.IsEmpty) return (this, entry);
        float[] values = this.ReadAll(entry);
        float[] row = new float[order.Length];
        for (int start = 0; start < values.Length; start += row.Length)
        {
            Span<float> target = values.AsSpan(start, row.Length);
            target.CopyTo(row);
            for (int at = 0; at < row.Length; at++) target[order[at]] = row[at];
        }

        TensorEntry decoded = new(name, PlainTypes.F32, entry.Shape, 0);
        return (new DecodedMatrix(decoded, values), decoded);
    }

    /// <summary>Adds to the report of an output what is known of the matrices that it is made of; null when none was solved.</summary>
    public TensorReport? Complete(TensorReport report, PlanItem item)
    {
        SolvedPart[] parts = [.. item.Parts.Where(part => _byName.ContainsKey(part.Name)).Select(part => _byName[part.Name].Part)];
        if (parts.Length == 0) return null;
        ErrorSumsRecord sums = parts.Select(part => part.Sums).Aggregate((a, b) => a + b);
        GptqErrors errors = parts.Select(part => part.Errors).Aggregate((a, b) => a + b);
        int rounded = parts.Count(part => part.Solver == LayerSolver.FewTokensFallback);
        return report with
        {
            Rmse = sums.Rmse,
            RelativeError = sums.RelativeError,
            Solver = (Array.Find(parts, part => part.Solver != LayerSolver.FewTokensFallback) ?? parts[0]).Solver,
            TokensSeen = parts.Min(part => part.TokensSeen),
            Damping = parts.Max(part => part.Damping),
            Gptq = errors.Square == 0 ? null : new GptqTensorReport(Math.Sqrt(errors.RelativeBefore), Math.Sqrt(errors.RelativeAfter), rounded),
        };
    }

    public void ReadRaw(TensorEntry entry, long byteOffset, Span<byte> destination)
    {
        if (_layers.TryGetValue(entry.FileIndex, out IReadFile? file)) file.ReadExactly(entry.ByteOffset + byteOffset, destination);
        else _pending.Find(pending => pending.Part.Name == entry.Name).Bytes.AsSpan((int)byteOffset, destination.Length).CopyTo(destination);
    }

    /// <summary>Begins a layer; its matrices are taken over when an earlier run finished it.</summary>
    /// <param name="typeOf">The type and shape of each matrix that the layer must have.</param>
    /// <returns>True when there is nothing left to solve in it.</returns>
    public bool Begin(int layer, IReadOnlyDictionary<string, (ElementType Type, Shape Shape)> typeOf)
    {
        _layer = layer;
        Folds = [];
        string names = PathOf(layer, "json"), bytes = PathOf(layer, "bin");
        if (!_files.FileExists(names) || !_files.FileExists(bytes)) return false;
        SolvedLayer? solved = Read(_files, names, SolvingJson.Default.SolvedLayer);
        IReadFile file = _files.OpenTyped(bytes);
        if (solved is null || !IsWhole(solved, file, typeOf))
        {
            file.Dispose();
            return false;
        }

        _layers.Add(layer, file);
        Folds = solved.Folds;
        foreach (SolvedPart part in solved.Parts) Register(part, typeOf[part.Name].Type, typeOf[part.Name].Shape);
        return true;
    }

    /// <summary>Adds a matrix of the layer at work.</summary>
    /// <param name="part">Its offset is set here.</param>
    public void Add(SolvedPart part, ElementType type, Shape shape, byte[] bytes)
    {
        part = part with { ByteOffset = _pending.Sum(pending => (long)pending.Bytes.Length), ByteLength = bytes.Length };
        _pending.Add((part, bytes));
        Register(part, type, shape);
    }

    /// <summary>The scales that were folded into a layer, of the one at work or of one that an earlier run solved.</summary>
    public IReadOnlyList<FoldedScales> Folds { get; set; } = [];

    /// <summary>Brings the layer to the disk.</summary>
    /// <exception cref="QuantException">The disk fails.</exception>
    public void Finish()
    {
        string path = PathOf(_layer, "bin");
        try
        {
            _files.Delete(path);
            ulong[] sums = new ulong[_pending.Count];
            using (IWriteFile file = _files.Create(path, _pending.Sum(pending => (long)pending.Bytes.Length)))
            {
                for (int i = 0; i < _pending.Count; i++)
                {
                    file.Write(_pending[i].Part.ByteOffset, _pending[i].Bytes);
                    sums[i] = SlabChecksum.Compute(_pending[i].Bytes);
                }

                file.FlushToDisk();
            }

            SolvedLayer layer = new([.. _pending.Select(pending => pending.Part)], Combine(sums), Folds);
            PendingOutput.PublishSmallFile(_files, PathOf(_layer, "json"), JsonSerializer.SerializeToUtf8Bytes(layer, SolvingJson.Default.SolvedLayer));
            _layers.Add(_layer, _files.OpenTyped(path));
            _pending.Clear();
        }
        catch (Exception error) when (FileExtensions.IsDiskFailure(error))
        {
            throw PendingOutput.Failed(path, error);
        }
    }

    public void Dispose()
    {
        foreach (IReadFile file in _layers.Values) file.Dispose();
    }

    private string PathOf(int layer, string extension) => Path.Combine(_folder, string.Create(CultureInfo.InvariantCulture, $"layer-{layer:00000}.{extension}"));

    private void Register(SolvedPart part, ElementType type, Shape shape)
    {
        TensorEntry entry = new(part.Name, type, shape, part.ByteOffset, _layer);
        _byName.Add(part.Name, (part, entry));
        _entries.Add(entry);
    }

    private static ulong Combine(ReadOnlySpan<ulong> sums) => SlabChecksum.Compute(System.Runtime.InteropServices.MemoryMarshal.AsBytes(sums));

    /// <summary>Whether the layer has these matrices and no others, and its file the bytes that were written.</summary>
    private static bool IsWhole(SolvedLayer solved, IReadFile file, IReadOnlyDictionary<string, (ElementType Type, Shape Shape)> typeOf)
    {
        if (solved.Parts.Count != typeOf.Count) return false;
        ulong[] sums = new ulong[solved.Parts.Count];
        for (int i = 0; i < sums.Length; i++)
        {
            SolvedPart part = solved.Parts[i];
            if (!typeOf.TryGetValue(part.Name, out (ElementType Type, Shape Shape) expected) || expected.Type.ByteCount(expected.Shape.ValueCount) != part.ByteLength) return false;
            if (part.ByteOffset < 0 || part.ByteOffset > file.Length - part.ByteLength) return false;
            byte[] bytes = new byte[part.ByteLength];
            file.ReadExactly(part.ByteOffset, bytes);
            sums[i] = SlabChecksum.Compute(bytes);
        }

        return Combine(sums) == solved.Checksum;
    }

    private static T? Read<T>(IFileLayer files, string path, System.Text.Json.Serialization.Metadata.JsonTypeInfo<T> type) where T : class
    {
        try
        {
            return JsonSerializer.Deserialize(files.ReadAllBytes(path, LargestJson), type);
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
