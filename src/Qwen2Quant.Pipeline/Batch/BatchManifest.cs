using System.Text.Json;
using System.Text.Json.Serialization;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Pipeline.Calibration;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Quantizing;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>What a task does.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<BatchStage>))]
public enum BatchStage
{
    [JsonStringEnumMemberName("statistics")]
    Statistics,

    [JsonStringEnumMemberName("sum")]
    Sum,

    [JsonStringEnumMemberName("encode")]
    Encode,

    [JsonStringEnumMemberName("merge")]
    Merge,

    [JsonStringEnumMemberName("prove")]
    Prove,
}

/// <summary>Statistics of a model that several items share.</summary>
/// <param name="Depth"><c>diagonal</c> or <c>gram</c>.</param>
/// <param name="Path">Where they come to lie, relative to the manifest.</param>
public sealed record BatchStatistics(string Id, string Model, string Depth, BatchCalibration Calibration, string Path)
{
    [JsonIgnore]
    internal CalibrationOptions Windows => MethodChoice.Windows(new QuantizationChoices { Samples = Calibration.Samples, Context = Calibration.Context, Sampling = Calibration.Sampling, ParseSpecial = Calibration.ParseSpecial });
}

/// <summary>One model in one scheme.</summary>
/// <param name="Index">Its place in the manifest, as <c>--index</c> takes it.</param>
/// <param name="Id">Of source, recipe and version of the program: 16 hexadecimal digits.</param>
/// <param name="Output">Path of the output, relative to the manifest.</param>
/// <param name="Bytes">Of all its files.</param>
/// <param name="MemoryBytes">The most that one of its tasks takes.</param>
/// <param name="TimeClass">Of all its tasks together: <c>seconds</c>, <c>minutes</c>, <c>hours</c> or <c>days</c>.</param>
/// <param name="Identity">What the id is made of, by name.</param>
/// <param name="Statistics">Id of shared statistics, or null.</param>
/// <param name="Calibration">The text of items that collect their own statistics, or null.</param>
/// <param name="Tasks">Ids of its tasks and of those that they need, in an order in which they can be done.</param>
public sealed record BatchItem(
    int Index, string Id, string Name, string Model, string Scheme, string Output, long Bytes, long MemoryBytes, string TimeClass, IReadOnlyDictionary<string, string> Identity,
    QuantizationChoices Options, string? Statistics, BatchCalibration? Calibration, BatchValidation? Validate, IReadOnlyDictionary<string, double>? FailAbove, IReadOnlyDictionary<string, double>? FailBelow, IReadOnlyList<string> Tasks);

/// <summary>What one worker does at a time.</summary>
/// <param name="Needs">Ids of the tasks that must be done before.</param>
/// <param name="Item">Index of its item; null for shared statistics.</param>
/// <param name="Statistics">Id of the statistics that it collects or adds, or null.</param>
/// <param name="Part">Which of <paramref name="Parts"/> equal ones it is, from 0.</param>
public sealed record BatchTask(string Id, BatchStage Stage, IReadOnlyList<string> Needs, int? Item, string? Statistics, int Part, int Parts, long MemoryBytes, string TimeClass);

/// <summary>Everything that a batch will do, as it was planned.</summary>
public sealed record BatchManifest(string Version, IReadOnlyList<BatchItem> Items, IReadOnlyList<BatchStatistics> Statistics, IReadOnlyList<BatchTask> Tasks)
{
    public const string FileName = "manifest.json";

    private const long LargestManifest = 1L << 30;

    /// <summary>Reads a manifest and refuses one that was changed into what no plan makes.</summary>
    /// <param name="path">Of the file, or of the folder that holds it.</param>
    /// <exception cref="QuantException">IO-111: it is another version's. IO-119: it is no manifest. IO-120: a path leaves its folder.</exception>
    public static BatchManifest Read(IFileLayer files, string path, out string folder)
    {
        string file = files.DirectoryExists(path) ? Path.Combine(path, FileName) : path;
        folder = Path.GetDirectoryName(Path.GetFullPath(file))!;
        BatchManifest? manifest;
        try
        {
            manifest = JsonSerializer.Deserialize(files.ReadAllBytes(file, LargestManifest), BatchJson.Default.BatchManifest);
        }
        catch (JsonException error)
        {
            throw Refuse(file, BatchRules.WellFormed, "the manifest is none", error.Message, null);
        }

        if (manifest is null || manifest.Items is null || manifest.Tasks is null || manifest.Statistics is null) throw Refuse(file, BatchRules.WellFormed, "the manifest is none", "an object without its members", null);
        if (manifest.Version != Conversion.Version) throw Refuse(file, BatchRules.SameWork, "the manifest is another version's", manifest.Version, Conversion.Version);
        manifest.Check(file);
        return manifest;
    }

    public BatchTask Task(string id) => Tasks.First(task => task.Id == id);

    public BatchStatistics StatisticsOf(string id) => Statistics.First(statistics => statistics.Id == id);

    /// <summary>Makes the folder and writes the manifest, whole or not at all. One that says the same is left alone.</summary>
    /// <exception cref="QuantException">Usage: there is another manifest, and <paramref name="force"/> is false. Resource: the folder cannot be written to.</exception>
    public void Publish(IFileLayer files, string folder, bool force)
    {
        string path = Path.Combine(folder, FileName);
        byte[] bytes = JsonSerializer.SerializeToUtf8Bytes(this, BatchJson.Default.BatchManifest);
        if (files.FileExists(path))
        {
            if (bytes.AsSpan().SequenceEqual(files.ReadAllBytes(path, LargestManifest))) return;
            if (!force) throw new QuantException(ErrorKind.Usage, "the folder has another manifest") { Path = path, Remedy = "Choose another --out, or pass --force: what both plan is kept." };
        }

        new BatchFolder(files, Path.GetFullPath(folder)).Create();
        PendingOutput.PublishSmallFile(files, path, bytes);
    }

    private void Check(string file)
    {
        HashSet<string> known = new(StringComparer.Ordinal), outputs = new(StringComparer.OrdinalIgnoreCase), statistics = new(Statistics.Select(shared => shared.Id), StringComparer.Ordinal);
        foreach (BatchTask task in Tasks)
        {
            bool isWhole = IsPlainName(task.Id) && task.Needs.All(known.Contains) && (task.Item is null || (task.Item >= 0 && task.Item < Items.Count)) && (task.Statistics is null || statistics.Contains(task.Statistics))
                && (task.Stage is BatchStage.Statistics or BatchStage.Sum ? task.Statistics is not null : task.Item is not null) && task.Parts >= 1 && task.Part >= 0 && task.Part < task.Parts;
            if (!isWhole || !known.Add(task.Id)) throw Refuse(file, BatchRules.WellFormed, "a task of the manifest does not go with the others", task.Id, "a name of its own, and needs that come before it");
        }

        for (int i = 0; i < Items.Count; i++)
        {
            BatchItem item = Items[i];
            if (item.Index != i || item.Tasks.Count == 0 || !item.Tasks.All(known.Contains) || !IsPlainName(item.Id) || (item.Statistics is not null && !statistics.Contains(item.Statistics))) throw Refuse(file, BatchRules.WellFormed, "an item of the manifest does not go with its tasks", item.Name, null);
            if (!IsPlainName(item.Output)) throw Refuse(file, BatchRules.PathsInside, "a path leaves the folder of the manifest", item.Output, "a name without folders");
            if (!outputs.Add(item.Output)) throw Refuse(file, BatchRules.WellFormed, "two items have one output", item.Output, null);
        }

        foreach (BatchStatistics shared in Statistics.Where(shared => !IsPlainName(shared.Id) || shared.Path != BatchFolder.StatisticsPath(shared.Id, shared.Depth)))
        {
            throw Refuse(file, BatchRules.PathsInside, "a path leaves the folder of the manifest", shared.Path, BatchFolder.StatisticsPath(shared.Id, shared.Depth));
        }
    }

    /// <summary>A name that is no path, hides nothing and is no device.</summary>
    internal static bool IsPlainName(string? name) => !string.IsNullOrEmpty(name) && name[0] != '.' && name.Length <= 200 && !name.Any(character => char.IsControl(character) || "/\\:*?\"<>|".Contains(character, StringComparison.Ordinal)) && name != BatchFolder.WorkName;

    private static QuantException Refuse(string path, Rule rule, string summary, string found, string? expected) => new(rule == BatchRules.SameWork ? ErrorKind.Usage : ErrorKind.InvalidInput, summary)
    {
        Rule = rule, Path = path, Found = found, Expected = expected, Remedy = "Plan the batch again with `batch plan`.",
    };
}
