using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Numerics;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Formats.Safetensors;
using Qwen2Quant.Model;
using Qwen2Quant.Pipeline.Checkpoints;
using Qwen2Quant.Pipeline.Running;
using Qwen2Quant.Quantization;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Calibration;

/// <summary>
/// A file of Gram matrices: safetensors, for each linear input <c>NAME.gram</c>, F32, the rows of the lower triangle one after the other, and <c>NAME.count</c>, I64, the
/// tokens behind it. They are sums: files of parts of a text add up to that of the whole.
/// </summary>
internal sealed class GramFile : IDisposable
{
    private const string FormatKey = "format", FormatName = "qwen2quant.gram", ModelKey = "model_sha256", TextKey = "text", WindowsKey = "windows", ContextKey = "context";

    private readonly SafetensorsCheckpoint _file;
    private readonly FileIdentity _identity;

    private GramFile(SafetensorsCheckpoint file, string path, FileIdentity identity)
    {
        _file = file;
        _identity = identity;
        Path = path;
    }

    public string Path { get; }

    public string Text => Metadata.GetValueOrDefault(TextKey) ?? "";

    public int Windows => Number(WindowsKey);

    public int Context => Number(ContextKey);

    /// <summary>Equal when the bytes are.</summary>
    public string Identity => string.Create(CultureInfo.InvariantCulture, $"{_identity.ResolvedPath} {_identity.Length} {_identity.LastWriteUtc:O}");

    private IReadOnlyDictionary<string, string> Metadata => _file.Files[0].Metadata;

    /// <summary>Opens the file of a model.</summary>
    /// <exception cref="QuantException">NU-91: it holds no Gram matrices, or another model's. Or it cannot be read.</exception>
    public static GramFile Open(string path, Checkpoint model, RunContext context)
    {
        GramFile file = new(SafetensorsCheckpoint.OpenFile(context.Files, path, context.ReadOptions), path, context.Files.IdentifyTyped(path));
        try
        {
            file.Check(model);
            return file;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>The file that a model's inputs will fill.</summary>
    public static PlannedFile Plan(string fileName, Checkpoint model, string text, int windows, int context)
    {
        List<OutputTensor> tensors = [];
        foreach ((LinearInput input, int width) in Inputs(model.Tensors.Catalogue))
        {
            tensors.Add(new OutputTensor(Name(input) + ".gram", PlainTypes.F32, new Shape(TriangleLength(width))));
            tensors.Add(new OutputTensor(Name(input) + ".count", PlainTypes.I64, new Shape(1)));
        }

        Dictionary<string, string> metadata = new(StringComparer.Ordinal)
        {
            [FormatKey] = FormatName,
            [ModelKey] = ModelHash(model),
            [TextKey] = text,
            [WindowsKey] = windows.ToString(CultureInfo.InvariantCulture),
            [ContextKey] = context.ToString(CultureInfo.InvariantCulture),
        };
        return SafetensorsPlan.Create(tensors, metadata, long.MaxValue).Files[0] with { Name = fileName };
    }

    /// <summary>All inputs of matrices inside the layers, each once, in the order of the model.</summary>
    public static IEnumerable<(LinearInput Input, int Width)> Inputs(TensorCatalogue catalogue) => catalogue.Tensors
        .Where(tensor => LinearInput.Of(tensor) is { Layer: >= 0 })
        .Select(tensor => (LinearInput.Of(tensor)!.Value, checked((int)tensor.Shape.RowLength)))
        .Distinct();

    /// <summary>Writes one matrix at its place in a planned file.</summary>
    /// <param name="gram">Null where no token was seen: the sums are zeros.</param>
    public static void Write(IWriteFile target, PlannedFile plan, LinearInput input, GramMatrix? gram)
    {
        if (gram is null) return;
        long byteOffset = OffsetOf(plan, Name(input) + ".gram");
        float[] sums = new float[gram.Width];
        for (int row = 0; row < gram.Width; row++)
        {
            gram.CopyRow(row, 1, sums);
            ReadOnlySpan<byte> bytes = MemoryMarshal.AsBytes(sums.AsSpan(0, row + 1));
            target.Write(byteOffset, bytes);
            byteOffset += bytes.Length;
        }

        target.Write(OffsetOf(plan, Name(input) + ".count"), BitConverter.GetBytes(gram.RowCount));
    }

    /// <summary>Adds the sums of an input to <paramref name="gram"/>, which is made when it is null and there are any.</summary>
    /// <exception cref="QuantException">NU-91: sums that are not finite, or a count below zero.</exception>
    public GramMatrix? Add(LinearInput input, int width, GramMatrix? gram)
    {
        TensorEntry sums = _file.Find(Name(input) + ".gram")!;
        Span<byte> countBytes = stackalloc byte[sizeof(long)];
        _file.ReadRaw(_file.Find(Name(input) + ".count")!, 0, countBytes);
        long count = BitConverter.ToInt64(countBytes);
        if (count == 0) return gram;
        if (count < 0) throw Unusable("a count of tokens is negative", sums.Name, count.ToString(CultureInfo.InvariantCulture));
        gram ??= new GramMatrix(width);
        gram.AddSums(count, (row, target) =>
        {
            Span<float> values = target.AsSpan(0, row + 1);
            _file.ReadRaw(sums, TriangleLength(row) * sizeof(float), MemoryMarshal.AsBytes(values));
            if (FiniteCheck.FindNonFinite(values) is >= 0 and int column) throw Unusable("sums are not finite", sums.Name, string.Create(CultureInfo.InvariantCulture, $"{values[column]} for channels {row} and {column}"));
        });
        return gram;
    }

    public void Dispose() => _file.Dispose();

    private static string Name(LinearInput input) =>
        new ActivationMaximum(ActivationMaxima.Module(input.Kind), input.Layer, input.Expert < 0 ? null : input.Expert, 0, 0, null, null).Name;

    private static long TriangleLength(int width) => (long)width * (width + 1) / 2;

    private static long OffsetOf(PlannedFile plan, string name) => plan.Tensors.First(tensor => tensor.Tensor.Name == name).ByteOffset;

    private int Number(string key) => int.TryParse(Metadata.GetValueOrDefault(key), NumberStyles.None, CultureInfo.InvariantCulture, out int value) ? value : 0;

    private void Check(Checkpoint model)
    {
        if (Metadata.GetValueOrDefault(FormatKey) != FormatName) throw Unusable("the file holds no Gram matrices", null, Metadata.GetValueOrDefault(FormatKey), FormatName);
        string hash = ModelHash(model);
        if (Metadata.GetValueOrDefault(ModelKey) != hash) throw Unusable("the Gram matrices are another model's", null, Metadata.GetValueOrDefault(ModelKey), hash);
        foreach ((LinearInput input, int width) in Inputs(model.Tensors.Catalogue))
        {
            Require(Name(input) + ".gram", PlainTypes.F32, TriangleLength(width));
            Require(Name(input) + ".count", PlainTypes.I64, 1);
        }

        void Require(string name, ElementType type, long length)
        {
            TensorEntry? found = _file.Find(name);
            if (found is not null && ReferenceEquals(found.Type, type) && found.Shape.Equals(new Shape(length))) return;
            throw Unusable("a tensor is missing or has another type or shape", name, found is null ? "nothing" : $"{found.Type.Name} {found.Shape}", $"{type.Name} [{length}]");
        }
    }

    /// <summary>Of the norms, whose values no conversion changes.</summary>
    private static string ModelHash(Checkpoint model)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (CanonicalTensor tensor in model.Tensors.Catalogue.Tensors)
        {
            if (tensor.Role is TensorRole.AttentionNorm or TensorRole.FfnNorm or TensorRole.OutputNorm) hash.AppendData(MemoryMarshal.AsBytes(model.Tensors.ReadAll(model.Tensors.Find(tensor.Name)!).AsSpan()));
        }

        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    private QuantException Unusable(string why, string? tensor, string? found, string? expected = null) => new(ErrorKind.InvalidInput, why)
    {
        Rule = StatisticsRules.Usable, Path = Path, Tensor = tensor, Found = found ?? "nothing", Expected = expected, Remedy = "Make them with `calibrate MODEL --depth gram --data TEXT --out FILE`.",
    };
}
