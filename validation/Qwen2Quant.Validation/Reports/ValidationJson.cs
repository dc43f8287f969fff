using System.Text.Json.Serialization;

namespace Qwen2Quant.Validation;

/// <summary>The JSON documents of this library; their keys are part of the command line's contract.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    UseStringEnumConverter = true,
    WriteIndented = true)]
[JsonSerializable(typeof(PerplexityResult))]
[JsonSerializable(typeof(ComparisonResult))]
[JsonSerializable(typeof(GenerationDocument))]
public sealed partial class ValidationJson : JsonSerializerContext;
