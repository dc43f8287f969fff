using System.Text.Json.Serialization;
using Qwen2Quant.Pipeline.Quantizing;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>The documents of a batch: jobs, manifest, receipts, status.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    WriteIndented = true)]
[JsonSerializable(typeof(BatchJob))]
[JsonSerializable(typeof(QuantizationChoices))]
[JsonSerializable(typeof(BatchManifest))]
[JsonSerializable(typeof(BatchReceipt))]
[JsonSerializable(typeof(BatchFailure))]
[JsonSerializable(typeof(LeaseContent))]
[JsonSerializable(typeof(BatchStatus))]
[JsonSerializable(typeof(BatchResults))]
public sealed partial class BatchJson : JsonSerializerContext;
