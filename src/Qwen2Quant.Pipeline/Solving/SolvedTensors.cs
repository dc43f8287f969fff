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
/// The encoded matrices of a run that goes layer by layer, in the <see cref="WorkFolder"/> of its output: for the matrices of one input a file with their bytes and one that says
/// what they are, written last; and the scales that were folded into a layer. Files are not flushed: checksums tell what a power cut took. As a source it gives what was encoded.
/// </summary>
internal sealed class SolvedTensors : ITensorSource
{
    private readonly IFileLayer _files;
    private readonly string _folder;
    private readonly Dictionary<string, (SolvedPart Part, TensorEntry Entry)> _byName = new(StringComparer.Ordinal);
    private readonly List<TensorEntry> _entries = [];
    private readonly List<string> _paths = [];
    private readonly List<(SolvedPart Part, byte[] Bytes)> _pending = [];
    private string[] _names = [];
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
        if (entry.FileIndex == _paths.Count)
        {
            _pending.Find(pending => pending.Part.Name == entry.Name).Bytes.AsSpan((int)byteOffset, destination.Length).CopyTo(destination);
            return;
        }

        // Not kept open: a mixture of experts has thousands.
        using IReadFile file = _files.OpenTyped(_paths[entry.FileIndex]);
        file.ReadExactly(entry.ByteOffset + byteOffset, destination);
    }

    /// <summary>Begins a layer; what an earlier run solved of it is taken over.</summary>
    /// <param name="typeOf">The type and shape of each matrix that the layer must have.</param>
    /// <returns>True when there is nothing left to solve in it.</returns>
    public bool Begin(int layer, IReadOnlyDictionary<string, (ElementType Type, Shape Shape)> typeOf)
    {
        _layer = layer;
        _names = [.. typeOf.Keys];
        Folds = JsonFile.ReadOrNull(_files, FoldsPath, SolvingJson.Default.IReadOnlyListFoldedScales);
        for (int first = 0; first < _names.Length; first++)
        {
            if (JsonFile.ReadOrNull(_files, PathOf(first, "json"), SolvingJson.Default.SolvedGroup) is not { } group || !IsWhole(group, PathOf(first, "bin"), typeOf)) continue;
            foreach (SolvedPart part in group.Parts) Register(part, typeOf[part.Name].Type, typeOf[part.Name].Shape);
            _paths.Add(PathOf(first, "bin"));
        }

        return _names.All(_byName.ContainsKey);
    }

    /// <summary>Adds a matrix of the layer at work.</summary>
    /// <param name="part">Its offset is set here.</param>
    public void Add(SolvedPart part, ElementType type, Shape shape, byte[] bytes)
    {
        part = part with { ByteOffset = _pending.Sum(pending => (long)pending.Bytes.Length), ByteLength = bytes.Length };
        _pending.Add((part, bytes));
        Register(part, type, shape);
    }

    /// <summary>The scales that were folded into the layer at work; null while they are not known.</summary>
    public IReadOnlyList<FoldedScales>? Folds { get; private set; }

    /// <summary>Keeps scales that were found.</summary>
    /// <exception cref="QuantException">The disk fails.</exception>
    public void Keep(IReadOnlyList<FoldedScales> folds)
    {
        Folds = folds;
        PendingOutput.WriteSmallFile(_files, FoldsPath, JsonSerializer.SerializeToUtf8Bytes(folds, SolvingJson.Default.IReadOnlyListFoldedScales));
    }

    /// <summary>Keeps the matrices that were added.</summary>
    /// <exception cref="QuantException">The disk fails.</exception>
    public void Keep()
    {
        int first = Array.IndexOf(_names, _pending[0].Part.Name);
        string path = PathOf(first, "bin");
        byte[] bytes = new byte[_pending.Sum(pending => pending.Bytes.Length)];
        ulong[] sums = new ulong[_pending.Count];
        for (int i = 0; i < _pending.Count; i++)
        {
            _pending[i].Bytes.CopyTo(bytes.AsSpan((int)_pending[i].Part.ByteOffset));
            sums[i] = SlabChecksum.Compute(_pending[i].Bytes);
        }

        PendingOutput.WriteSmallFile(_files, path, bytes);
        SolvedGroup group = new([.. _pending.Select(pending => pending.Part)], Combine(sums));
        PendingOutput.WriteSmallFile(_files, PathOf(first, "json"), JsonSerializer.SerializeToUtf8Bytes(group, SolvingJson.Default.SolvedGroup));
        _paths.Add(path);
        _pending.Clear();
    }

    public void Dispose()
    {
    }

    private string FoldsPath => Path.Combine(_folder, string.Create(CultureInfo.InvariantCulture, $"layer-{_layer:00000}-folds.json"));

    /// <summary>Of the matrices of one input, which are named by the first of them.</summary>
    private string PathOf(int first, string extension) => Path.Combine(_folder, string.Create(CultureInfo.InvariantCulture, $"layer-{_layer:00000}-{first:00000}.{extension}"));

    private void Register(SolvedPart part, ElementType type, Shape shape)
    {
        TensorEntry entry = new(part.Name, type, shape, part.ByteOffset, _paths.Count);
        _byName.Add(part.Name, (part, entry));
        _entries.Add(entry);
    }

    private static ulong Combine(ReadOnlySpan<ulong> sums) => SlabChecksum.Compute(System.Runtime.InteropServices.MemoryMarshal.AsBytes(sums));

    /// <summary>Whether the matrices are of the layer, and their file has the bytes that were written.</summary>
    private bool IsWhole(SolvedGroup group, string path, IReadOnlyDictionary<string, (ElementType Type, Shape Shape)> typeOf)
    {
        if (!_files.FileExists(path)) return false;
        using IReadFile file = _files.OpenTyped(path);
        ulong[] sums = new ulong[group.Parts.Count];
        for (int i = 0; i < sums.Length; i++)
        {
            SolvedPart part = group.Parts[i];
            if (_byName.ContainsKey(part.Name) || !typeOf.TryGetValue(part.Name, out (ElementType Type, Shape Shape) expected) || expected.Type.ByteCount(expected.Shape.ValueCount) != part.ByteLength) return false;
            if (part.ByteOffset < 0 || part.ByteOffset > file.Length - part.ByteLength) return false;
            byte[] bytes = new byte[part.ByteLength];
            file.ReadExactly(part.ByteOffset, bytes);
            sums[i] = SlabChecksum.Compute(bytes);
        }

        return Combine(sums) == group.Checksum;
    }
}
