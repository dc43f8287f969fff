using System.Buffers;
using System.Text.Json;
using Qwen2Quant.Core;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Json;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>
/// <c>model.safetensors.index.json</c>: which shard holds which tensor. Its names are plain file names, never paths.
/// </summary>
internal sealed class ShardIndex
{
    public const string FileSuffix = ".safetensors.index.json";

    /// <summary>The limit of the common file systems, in bytes; names of more characters can never exist.</summary>
    private const int LongestFileName = 255;

    private static readonly SearchValues<char> NotInNames = SearchValues.Create("/\\:*?\"<>|");

    private ShardIndex(string path) => Path = path;

    public string Path { get; }

    /// <summary>Shard file names in ordinal order.</summary>
    public string[] Shards { get; private set; } = [];

    /// <summary>Place in <see cref="Shards"/> of the shard that each tensor is mapped to.</summary>
    public Dictionary<string, int> ShardOf { get; } = new(StringComparer.Ordinal);

    /// <summary><c>metadata.total_size</c> as it stands in the file, or null. It is often wrong.</summary>
    public string? TotalSize { get; private set; }

    /// <exception cref="QuantException">Rules HF-56, HF-59, HF-78.</exception>
    public static ShardIndex Parse(string path, ReadOnlySpan<byte> json, Limits limits)
    {
        ShardIndex index = new(path);
        JsonFault fault = StrictJson.Check(json, limits.JsonDepth, out int offset);
        if (fault != JsonFault.None || json[offset..].IndexOfAnyExcept(" \t\r\n"u8) >= 0)
        {
            throw new QuantException(ErrorKind.InvalidInput, "the index is not one well-formed JSON object")
            {
                Rule = WeightFileRules.IndexNamesPlainFiles,
                Path = path,
                ByteOffset = offset,
                Found = TextEscape.Escape(json[offset..]),
            };
        }

        bool hasMap = false;
        Utf8JsonReader reader = StrictJson.NewReader(json[..offset], limits.JsonDepth);
        reader.Read();
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            bool isMap = reader.ValueTextEquals("weight_map"u8);
            bool isMetadata = reader.ValueTextEquals("metadata"u8);
            reader.Read();
            if (isMap && hasMap) throw index.Fail(WeightFileRules.IndexNamesPlainFiles, "weight_map occurs twice");
            if (isMap) index.ReadWeightMap(ref reader);
            else if (isMetadata) index.ReadMetadata(ref reader);
            else reader.Skip();
            hasMap |= isMap;
        }

        if (index.Shards.Length == 0) throw index.Fail(WeightFileRules.IndexNamesPlainFiles, "the index has no weight_map, or an empty one");
        return index;
    }

    private void ReadWeightMap(ref Utf8JsonReader reader)
    {
        if (reader.TokenType != JsonTokenType.StartObject) throw Fail(WeightFileRules.IndexNamesPlainFiles, "weight_map is not an object");
        Dictionary<string, int> firstSeen = new(StringComparer.Ordinal);
        Dictionary<string, string> byFoldedName = new(StringComparer.OrdinalIgnoreCase);
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string tensor = reader.GetString()!;
            reader.Read();
            if (reader.TokenType != JsonTokenType.String)
            {
                throw Fail(WeightFileRules.IndexNamesPlainFiles, "weight_map holds something else than a file name", tensor, StrictJson.Describe(ref reader));
            }

            string shard = reader.GetString()!;
            if (!IsPlainName(shard)) throw Fail(WeightFileRules.IndexNamesPlainFiles, "the index names something else than a file beside it", tensor, shard);
            if (!firstSeen.TryGetValue(shard, out int number))
            {
                firstSeen[shard] = number = firstSeen.Count;
                if (!byFoldedName.TryAdd(shard, shard))
                {
                    throw Fail(WeightFileRules.ShardNamesDiffer, "two shard names differ only by case", tensor, $"{byFoldedName[shard]} and {shard}");
                }
            }

            if (!ShardOf.TryAdd(tensor, number)) throw Fail(WeightFileRules.TensorInOneShard, "the index maps a tensor twice", tensor);
        }

        Shards = [.. firstSeen.Keys.Order(StringComparer.Ordinal)];
        int[] place = new int[Shards.Length];
        for (int i = 0; i < place.Length; i++) place[firstSeen[Shards[i]]] = i;
        foreach (string tensor in ShardOf.Keys.ToArray()) ShardOf[tensor] = place[ShardOf[tensor]];
    }

    /// <summary>True for the name of a safetensors file that stays in the folder on every system.</summary>
    private static bool IsPlainName(string name) =>
        name.EndsWith(".safetensors", StringComparison.Ordinal) && name.Length <= LongestFileName && name[0] != '.'
        && name.AsSpan().IndexOfAny(NotInNames) < 0 && !name.Any(char.IsControl);

    private void ReadMetadata(ref Utf8JsonReader reader)
    {
        if (reader.TokenType != JsonTokenType.StartObject)
        {
            reader.Skip();
            return;
        }

        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            bool isTotalSize = reader.ValueTextEquals("total_size"u8);
            reader.Read();
            if (isTotalSize) TotalSize = StrictJson.Describe(ref reader);
            reader.Skip();
        }
    }

    private QuantException Fail(Rule rule, string summary, string? tensor = null, string? found = null) => new(ErrorKind.InvalidInput, summary)
    {
        Rule = rule,
        Path = Path,
        Tensor = tensor,
        Found = found,
    };
}
