using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Formats.Safetensors;

/// <summary>
/// The rules of one safetensors file: the format's own (huggingface/safetensors, "Format" in its README, and the checks of
/// <c>tensor.rs</c>), made strict where readers in the field differ from one another.
/// </summary>
public static class SafetensorsRules
{
    public static readonly Rule NotEmpty = new("ST-1", "A file is not empty");
    public static readonly Rule HasLengthField = new("ST-2", "A file starts with the 8 bytes of the header's length");
    public static readonly Rule HeaderNotEmpty = new("ST-3", "The header's length is not 0");
    public static readonly Rule HeaderWithinLimit = new("ST-4", "The header's length is at most 100,000,000 bytes");
    public static readonly Rule HeaderLengthUnsigned = new("ST-5", "The header's length is below 2^63, never taken as negative");
    public static readonly Rule HeaderInFile = new("ST-6", "The header ends inside the file");
    public static readonly Rule LongestHeader = new("ST-7", "A header of exactly the limit is read");
    public static readonly Rule HeaderIsObject = new("ST-8", "The header is one well-formed JSON object from its first byte on");
    public static readonly Rule PaddedWithSpaces = new("ST-9", "Nothing but spaces follows the header's object");
    public static readonly Rule HeaderIsUtf8 = new("ST-10", "The header is UTF-8, and its escapes form whole characters");
    public static readonly Rule HeaderDepth = new("ST-11", "The header's nesting stays within the limit");
    public static readonly Rule UniqueNames = new("ST-12", "A tensor name occurs once");
    public static readonly Rule UniqueMembers = new("ST-13", "A member of an entry occurs once");
    public static readonly Rule MetadataOfStrings = new("ST-14", "__metadata__ occurs once and maps distinct keys to strings");
    public static readonly Rule EntryMembers = new("ST-15", "An entry has exactly dtype (a string), shape (an array) and data_offsets");
    public static readonly Rule KnownDtype = new("ST-16", "Values are read only of a dtype that is known and decodable");
    public static readonly Rule WholeDimensions = new("ST-17", "A dimension is a whole number in plain digits below 2^63, and there are at most 8");
    public static readonly Rule SizeWithinRange = new("ST-18", "The product of a shape, and its size in bytes, do not overflow");
    public static readonly Rule EmptyTensorInOrder = new("ST-19", "A tensor without values takes no bytes and lies on a boundary between tensors");
    public static readonly Rule Scalars = new("ST-20", "The shape [] is one value");
    public static readonly Rule OrderedOffsets = new("ST-21", "data_offsets are two whole numbers, the begin not above the end");
    public static readonly Rule SizeMatches = new("ST-22", "A tensor takes the bytes that its dtype and shape ask for, and they are whole");
    public static readonly Rule NoOverlap = new("ST-23", "Tensors do not overlap");
    public static readonly Rule NoHole = new("ST-24", "There is no hole between tensors");
    public static readonly Rule FirstAtZero = new("ST-25", "The first tensor begins at offset 0");
    public static readonly Rule NothingAfter = new("ST-26", "Nothing follows the last tensor");
    public static readonly Rule DataInFile = new("ST-27", "The last tensor ends inside the file");
    public static readonly Rule NameWithinLimit = new("ST-28", "A name is any text up to the limit");
    public static readonly Rule CountWithinLimit = new("ST-29", "There are at most as many tensors as the limit says");
    public static readonly Rule UnalignedData = new("ST-30", "Data may start at any byte");

    public static IReadOnlyList<Rule> All { get; } =
    [
        NotEmpty, HasLengthField, HeaderNotEmpty, HeaderWithinLimit, HeaderLengthUnsigned, HeaderInFile, LongestHeader, HeaderIsObject,
        PaddedWithSpaces, HeaderIsUtf8, HeaderDepth, UniqueNames, UniqueMembers, MetadataOfStrings, EntryMembers, KnownDtype,
        WholeDimensions, SizeWithinRange, EmptyTensorInOrder, Scalars, OrderedOffsets, SizeMatches, NoOverlap, NoHole, FirstAtZero,
        NothingAfter, DataInFile, NameWithinLimit, CountWithinLimit, UnalignedData,
    ];

    /// <summary>Those of <see cref="All"/> that say what must be accepted: no file can break them.</summary>
    public static IReadOnlyList<Rule> Permissions { get; } = [LongestHeader, Scalars, UnalignedData];
}
