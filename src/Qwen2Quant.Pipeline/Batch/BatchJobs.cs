using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;
using Qwen2Quant.Pipeline.Quantizing;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>Statistics that all items of a model share, collected once.</summary>
/// <param name="Text">A TEXT argument; a path is relative to the file of jobs.</param>
/// <param name="Partitions">Parts that different workers may collect; the sums do not depend on who does.</param>
/// <param name="Schedule"><c>parallel</c>: methods that go layer by layer take Gram matrices of the model as it is; <c>sequential</c>: each item collects its own.</param>
public sealed record BatchCalibration(string Text = MethodChoice.DefaultText, int? Samples = null, int? Context = null, string? Sampling = null, bool ParseSpecial = false, int Partitions = 1, string Schedule = BatchCalibration.Sequential)
{
    public const string Sequential = "sequential", Parallel = "parallel";
}

/// <summary>What the published outputs are measured on.</summary>
public sealed record BatchValidation(string Text = "builtin:text", int Context = 512, int? Chunks = null, string Protocol = "llama", string Sampling = "first")
{
    /// <exception cref="QuantException">Usage: a value is none.</exception>
    public WindowOptions Windows() => new()
    {
        Context = Context, Chunks = Chunks ?? Proving.Proof.DefaultValidationChunks, Protocol = Parse<ScoringProtocol>(Protocol, "protocol"), Sampling = Parse<WindowSampling>(Sampling, "sampling"),
    };

    private static T Parse<T>(string text, string key) where T : struct, Enum => Enum.TryParse(text, ignoreCase: true, out T value) && Enum.IsDefined(value) ? value
        : throw new QuantException(ErrorKind.Usage, $"\"{key}\" of \"validate\" is none") { Found = text, Expected = string.Join(", ", Enum.GetNames<T>()).ToLowerInvariant() };
}

/// <summary>Models times schemes, and what is asked of them. Null where the level above decides.</summary>
/// <param name="Name">Name of an output, with <c>{model}</c> and <c>{scheme}</c> in it.</param>
/// <param name="EncodeParts">Parts of the encoding of one output that different workers may do.</param>
public sealed record BatchJob(
    IReadOnlyList<string>? Models = null,
    IReadOnlyList<string>? Schemes = null,
    JsonObject? Options = null,
    BatchCalibration? Calibration = null,
    BatchValidation? Validate = null,
    IReadOnlyDictionary<string, double>? FailAbove = null,
    IReadOnlyDictionary<string, double>? FailBelow = null,
    string? Name = null,
    int? EncodeParts = null,
    IReadOnlyList<BatchJob>? Jobs = null)
{
    /// <summary>Reads a file of jobs. What is unknown, twice there or of another kind is refused, with its place.</summary>
    /// <returns>The jobs, each with what the top level says where it says nothing.</returns>
    /// <exception cref="QuantException">IO-119.</exception>
    public static IReadOnlyList<BatchJob> Read(ReadOnlySpan<byte> json, string path)
    {
        BatchJob top;
        try
        {
            StrictJson.Read(json, Limits.Default, StrictJson.Skip, problem => Refuse(path, string.Create(CultureInfo.InvariantCulture, $"byte {problem.ByteOffset}"), problem.Fault == JsonFault.DuplicateName ? $"\"{problem.Name}\" twice" : problem.Error?.Message ?? "no JSON", null));
            JsonNode? node = JsonNode.Parse(json);
            RequireKnown(node, BatchJson.Default.BatchJob, "the file", path);
            top = node.Deserialize(BatchJson.Default.BatchJob) ?? throw Refuse(path, "the file", "null", "an object");
        }
        catch (JsonException error)
        {
            throw Refuse(path, error.Path is { Length: > 0 } place ? place : "the file", error.InnerException?.Message ?? error.Message, null);
        }

        IReadOnlyList<BatchJob> jobs = top.Jobs is null ? [top] : [.. top.Jobs.Select(top.Apply)];
        if (jobs.Count == 0) throw Refuse(path, "jobs", "no job", "at least one");
        foreach (BatchJob job in jobs)
        {
            if (job.Jobs is not null && top.Jobs is not null && !ReferenceEquals(job, top)) throw Refuse(path, "jobs", "jobs within jobs", "one level");
            if (job.Models is not { Count: > 0 }) throw Refuse(path, "models", "none", "at least one model");
            if (job.Schemes is not { Count: > 0 }) throw Refuse(path, "schemes", "none", "at least one scheme");
            if (job.EncodeParts is < 1 or > 1000 || job.Calibration?.Partitions is < 1 or > 1000) throw Refuse(path, "encode_parts or partitions", "a number out of range", "1 to 1000");
            if (job.Calibration is { Schedule: not (BatchCalibration.Sequential or BatchCalibration.Parallel) } wrong) throw Refuse(path, "calibration.schedule", wrong.Schedule, "sequential or parallel");
        }

        return jobs;
    }

    /// <summary>The options as one record.</summary>
    internal QuantizationChoices Choices(string path)
    {
        if (Options is null) return new QuantizationChoices();
        RequireKnown(Options, BatchJson.Default.QuantizationChoices, "options", path);
        foreach (string owned in (string[])["calibration", "statistics", "samples", "context", "sampling", "parse_special"])
        {
            if (Options.ContainsKey(owned)) throw Refuse(path, $"options.{owned}", "an option that the batch sees to", "it in \"calibration\"");
        }

        try
        {
            return Options.Deserialize(BatchJson.Default.QuantizationChoices)!;
        }
        catch (JsonException error)
        {
            throw Refuse(path, "options" + error.Path?.TrimStart('$'), error.InnerException?.Message ?? error.Message, null);
        }
    }

    private BatchJob Apply(BatchJob own)
    {
        JsonObject options = Options?.DeepClone().AsObject() ?? [];
        foreach ((string name, JsonNode? value) in own.Options ?? []) options[name] = value?.DeepClone();
        return new BatchJob(
            own.Models ?? Models, own.Schemes ?? Schemes, options, own.Calibration ?? Calibration, own.Validate ?? Validate, own.FailAbove ?? FailAbove, own.FailBelow ?? FailBelow, own.Name ?? Name, own.EncodeParts ?? EncodeParts, own.Jobs);
    }

    /// <summary>Refuses members that a type does not have, with those that it has.</summary>
    private static void RequireKnown(JsonNode? node, JsonTypeInfo type, string where, string path)
    {
        if (node is not JsonObject members) throw Refuse(path, where, node?.GetValueKind().ToString() ?? "null", "an object");
        foreach ((string name, JsonNode? value) in members)
        {
            JsonPropertyInfo known = type.Properties.FirstOrDefault(property => property.Name == name)
                ?? throw Refuse(path, where, $"\"{name}\"", "the names " + string.Join(", ", type.Properties.Select(property => property.Name)));
            JsonTypeInfo? inner = known.PropertyType == typeof(BatchCalibration) ? BatchJson.Default.BatchCalibration : known.PropertyType == typeof(BatchValidation) ? BatchJson.Default.BatchValidation : null;
            if (inner is not null && value is not null) RequireKnown(value, inner, name, path);
            if (name == "jobs" && value is JsonArray jobs)
            {
                foreach (JsonNode? job in jobs) RequireKnown(job, type, "a job", path);
            }
        }
    }

    private static QuantException Refuse(string path, string where, string found, string? expected) =>
        new(ErrorKind.Usage, $"the file of jobs is wrong at {where}") { Rule = BatchRules.WellFormed, Path = path, Found = found, Expected = expected };
}
