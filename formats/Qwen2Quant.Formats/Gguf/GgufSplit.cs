using System.Globalization;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Formats.Gguf;

/// <summary>
/// Sets of files that hold one model, as gguf-split makes them: names, and the rules of the keys <c>split.*</c>. The first part
/// has the metadata of the model, and all parts share its tensors.
/// </summary>
public static class GgufSplit
{
    /// <summary>Parts are numbered by 16-bit values.</summary>
    public const int MostParts = ushort.MaxValue;

    private const string Extension = ".gguf";

    /// <summary>Name of part <paramref name="index"/> (from 0) of <paramref name="count"/>: <c>prefix-00001-of-00003.gguf</c>.</summary>
    public static string PartName(string prefix, int index, int count) =>
        string.Create(CultureInfo.InvariantCulture, $"{prefix}-{index + 1:d5}-of-{count:d5}{Extension}");

    /// <summary>Takes a part's file name (without folder) apart; false when it is not spelled as one.</summary>
    public static bool TryParsePartName(string fileName, out string prefix, out int index, out int count)
    {
        // -00001-of-00003.gguf, counted from the end
        const int NumberLength = 5, TailLength = 15;
        (prefix, index, count) = ("", 0, 0);
        if (!fileName.EndsWith(Extension, StringComparison.Ordinal)) return false;
        ReadOnlySpan<char> stem = fileName.AsSpan(0, fileName.Length - Extension.Length);
        if (stem.Length < TailLength) return false;
        ReadOnlySpan<char> tail = stem[^TailLength..];
        if (tail[0] != '-' || !tail.Slice(1 + NumberLength, 4).SequenceEqual("-of-")) return false;
        if (!int.TryParse(tail.Slice(1, NumberLength), NumberStyles.None, CultureInfo.InvariantCulture, out int number)) return false;
        if (!int.TryParse(tail[^NumberLength..], NumberStyles.None, CultureInfo.InvariantCulture, out count)) return false;
        (prefix, index) = (stem[..^TailLength].ToString(), number - 1);
        return true;
    }

    /// <summary>Parts of the set that <paramref name="part"/> belongs to; 1 when it stands alone (gguf-split's merge leaves a count of 0).</summary>
    internal static int PartCount(GgufPart part)
    {
        if (part.Metadata.Find(GgufKeys.SplitCount) is null) return 1;
        int count = ReadNumber(part, GgufKeys.SplitCount, MostParts);
        return Math.Max(count, 1);
    }

    /// <summary>Reads the siblings of <paramref name="named"/> from its folder and checks the set; <paramref name="opened"/> holds the named file, and in the end all files in part order.</summary>
    internal static List<GgufPart> ReadSet(IFileLayer files, GgufPart named, int count, ReadOptions options, List<IReadFile> opened)
    {
        int namedIndex = ReadNumber(named, GgufKeys.SplitNo, MostParts);
        string fileName = Path.GetFileName(named.Path);
        if (!TryParsePartName(fileName, out string prefix, out int index, out int nameCount) || index != namedIndex || nameCount != count || namedIndex >= count)
        {
            throw GgufRefusal.Of(
                GgufRules.Split, named.Path, "the file's name does not say which part of a split file it is, so the others cannot be found",
                found: $"part {namedIndex + 1} of {count}, in '{fileName}'", expected: "PREFIX-0000I-of-0000N.gguf with the same numbers",
                remedy: "Give all parts back the names that they had when they were made.");
        }

        string folder = Path.GetDirectoryName(named.Path) ?? "";
        List<GgufPart> parts = [];
        for (int i = 0; i < count; i++)
        {
            if (i == namedIndex)
            {
                parts.Add(named);
                continue;
            }

            string path = Path.Combine(folder, PartName(prefix, i, count));
            if (!files.FileExists(path))
            {
                throw GgufRefusal.Of(
                    GgufRules.Split, path, $"part {i + 1} of {count} of the split file is missing", remedy: "Download the missing part into the same folder.");
            }

            IReadFile file = files.OpenTyped(path);
            opened.Insert(i, file);
            parts.Add(GgufHeaderReader.Read(file, options));
        }

        CheckSet(parts);
        return parts;
    }

    /// <summary>What a file must satisfy that stands alone and yet has the keys of a split set.</summary>
    internal static void CheckAlone(GgufPart part)
    {
        if (part.Metadata.Find(GgufKeys.SplitCount) is null || ReadNumber(part, GgufKeys.SplitCount, MostParts) == 0) return;
        CheckSet([part]);
    }

    private static void CheckSet(List<GgufPart> parts)
    {
        long tensorCount = parts.Sum(part => (long)part.Tensors.Count);
        HashSet<string> names = new(StringComparer.Ordinal);
        for (int i = 0; i < parts.Count; i++)
        {
            GgufPart part = parts[i];
            Demand(part, GgufKeys.SplitCount, MostParts, parts.Count);
            Demand(part, GgufKeys.SplitNo, MostParts, i);
            Demand(part, GgufKeys.SplitTensorCount, int.MaxValue, tensorCount);
            CheckSameModel(parts[0], part);
            foreach (GgufTensorInfo tensor in part.Tensors)
            {
                if (!names.Add(tensor.Name)) throw GgufRefusal.Of(GgufRules.Split, part.Path, "two parts have the tensor", tensor.Name);
            }
        }
    }

    /// <summary>Keys that a later part repeats must say what the first one says; the number of the part and its own alignment differ by nature.</summary>
    private static void CheckSameModel(GgufPart first, GgufPart part)
    {
        foreach ((string key, GgufValue value) in part.Metadata)
        {
            if (key is GgufKeys.SplitNo or GgufKeys.Alignment || first.Metadata.Find(key) is not { } stated || stated.Equals(value)) continue;
            if (value.TryGetInteger(out long number) && stated.TryGetInteger(out long same) && number == same) continue;
            throw GgufRefusal.Of(
                GgufRules.Split, part.Path, "the part is of another model than the first one: they differ in", key, found: value.ToString(), expected: stated.ToString());
        }
    }

    private static void Demand(GgufPart part, string key, int largest, long expected)
    {
        long found = ReadNumber(part, key, largest);
        if (found == expected) return;
        throw GgufRefusal.Of(
            GgufRules.Split, part.Path, "the part does not fit the others", key, found: $"{found}", expected: $"{expected}",
            remedy: "Download all parts of one and the same model into one folder.");
    }

    private static int ReadNumber(GgufPart part, string key, int largest)
    {
        GgufValue? value = part.Metadata.Find(key);
        if (value is not null && value.TryGetInteger(out int number) && number >= 0 && number <= largest) return number;
        throw GgufRefusal.Of(
            GgufRules.Split, part.Path, "a part of a split file lacks a usable key", key,
            found: value is null ? "nothing" : $"{value.Describe()} {value}", expected: $"an integer from 0 to {largest}");
    }
}
