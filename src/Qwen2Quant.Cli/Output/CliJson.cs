using System.Text.Json.Serialization;
using Qwen2Quant.Core.Running;
using Qwen2Quant.Pipeline.Benchmarking;

namespace Qwen2Quant.Cli.Output;

/// <summary>What <c>tokenize</c> prints.</summary>
internal sealed record TokenizeResult(int Count, IReadOnlyList<TokenPiece> Tokens);

/// <param name="Piece">The bytes of the token, escaped where they are not printable.</param>
internal sealed record TokenPiece(int Id, string Piece);

/// <summary>What <c>generate</c> prints, and one answer of a conversation.</summary>
/// <param name="Prompt">The message, in a conversation.</param>
/// <param name="StopReason"><c>stop_token</c>, <c>max_tokens</c>, <c>context</c> (it is full) or <c>interrupted</c>.</param>
/// <param name="PromptTokens">Tokens before the answer.</param>
/// <param name="PromptTokensRun">Those of them that were not in the cache.</param>
/// <param name="TokensPerSecond">Of the answer, the prompt not counted; absent when it has no more than one token.</param>
internal sealed record GenerateResult(
    string? Prompt,
    string Text,
    IReadOnlyList<int> Tokens,
    string StopReason,
    int PromptTokens,
    int PromptTokensRun,
    double Seconds,
    double PromptTokensPerSecond,
    double? TokensPerSecond,
    IReadOnlyList<QuantEvent>? Events);

/// <summary>What a conversation prints with <c>--json</c>.</summary>
internal sealed record ChatResult(IReadOnlyList<GenerateResult> Answers, IReadOnlyList<QuantEvent> Events);

/// <summary>What <c>verify</c> prints.</summary>
internal sealed record VerifyResult(string Path, string Container, int Tensors, long Parameters, long Bytes, double Seconds);

/// <summary>What <c>types</c> prints.</summary>
/// <param name="PackedSchemes">Forms of the schemes whose parts combine freely.</param>
internal sealed record TypesResult(IReadOnlyList<SchemeRow> Schemes, IReadOnlyList<TypeRow> Types, IReadOnlyList<string> PackedSchemes);

/// <param name="FileType"><c>general.file_type</c> of files made by the scheme.</param>
/// <param name="Type">Type of the tensors that no rule names; absent where the source's are kept, and so are the figures.</param>
/// <param name="BitsPerWeight">Bits for each weight of a whole file of the 7B shape.</param>
/// <param name="NeedsImatrix">True when an importance matrix is needed.</param>
/// <param name="Writes">False where a type is still missing.</param>
internal sealed record SchemeRow(string Scheme, IReadOnlyList<string> Aliases, int? FileType, string? Type, int? BlockValues, double? BitsPerWeight, bool NeedsImatrix, bool Writes);

internal sealed record TypeRow(string Name, int Id, int BlockValues, int BlockBytes, double BitsPerWeight, bool Reads, bool Writes);

/// <summary>What <c>bench</c> prints.</summary>
/// <param name="Simd">The vector width in use.</param>
/// <param name="Kernels">Absent when one group of figures was asked for.</param>
internal sealed record BenchResult(string Simd, int Threads, IReadOnlyList<string>? Kernels, IReadOnlyList<BenchmarkFigure> Figures);

/// <summary>What <c>batch report</c> prints.</summary>
internal sealed record BatchPage(string Path, long Bytes, int Items);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull, WriteIndented = true)]
[JsonSerializable(typeof(TokenizeResult))]
[JsonSerializable(typeof(GenerateResult))]
[JsonSerializable(typeof(ChatResult))]
[JsonSerializable(typeof(VerifyResult))]
[JsonSerializable(typeof(TypesResult))]
[JsonSerializable(typeof(BenchResult))]
[JsonSerializable(typeof(BatchPage))]
internal sealed partial class CliJson : JsonSerializerContext;
