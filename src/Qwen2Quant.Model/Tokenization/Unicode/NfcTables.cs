namespace Qwen2Quant.Model.Tokenization.Unicode;

/// <summary>Canonical decompositions, compositions, combining classes and the NFC quick check (Unicode Standard Annex 15).</summary>
internal static class NfcTables
{
    /// <summary>Bit of <see cref="Flags"/>: the character may change or combine backwards (NFC_Quick_Check is No or Maybe).</summary>
    public const ushort NotYes = 0x100;

    private const int PageBits = 7;
    private const int HangulBase = 0xAC00, HangulCount = 11172, LeadBase = 0x1100, VowelBase = 0x1161, TrailBase = 0x11A7;
    private const int LeadCount = 19, VowelCount = 21, TrailCount = 28;

    private static readonly ushort[] PageStarts = new ushort[0x110000 >> PageBits];
    private static readonly ushort[] Pages;
    private static readonly Dictionary<int, (int First, int Second)> Decompositions = [];
    private static readonly Dictionary<long, int> Compositions = [];

    static NfcTables()
    {
        Dictionary<int, ushort> flags = [];
        ReadOnlySpan<byte> data = Convert.FromBase64String(NfcData.Base64);
        int position = 0;
        int character = 0;
        for (int left = ReadNumber(data, ref position); left > 0; left--)
        {
            character += ReadNumber(data, ref position);
            int firstAndComposes = ReadNumber(data, ref position);
            int first = firstAndComposes >> 1, second = ReadNumber(data, ref position);
            Decompositions.Add(character, (first, second));
            if ((firstAndComposes & 1) == 0)
            {
                Mark(character, NotYes);
            }
            else
            {
                Compositions.Add(PairKey(first, second), character);
                Mark(second, NotYes);
            }
        }

        int end = 0;
        for (int left = ReadNumber(data, ref position); left > 0; left--)
        {
            int start = end + ReadNumber(data, ref position);
            end = start + ReadNumber(data, ref position);
            ushort combiningClass = (ushort)ReadNumber(data, ref position);
            for (int marked = start; marked < end; marked++) Mark(marked, combiningClass);
        }

        for (int vowel = 0; vowel < VowelCount; vowel++) Mark(VowelBase + vowel, NotYes);
        for (int trail = 1; trail < TrailCount; trail++) Mark(TrailBase + trail, NotYes);
        Pages = BuildPages(flags);

        void Mark(int marked, ushort flag) => flags[marked] = (ushort)(flags.GetValueOrDefault(marked) | flag);
    }

    /// <summary>The canonical combining class in the low byte, and <see cref="NotYes"/>; 0 for a starter that NFC keeps and nothing before it absorbs.</summary>
    public static int Flags(int character) =>
        Pages[PageStarts[character >> PageBits] + (character & ((1 << PageBits) - 1))];

    public static int CombiningClass(int character) => Flags(character) & 0xFF;

    /// <summary>One level of the canonical decomposition; <paramref name="second"/> is 0 for a singleton.</summary>
    public static bool TryDecompose(int character, out int first, out int second)
    {
        int hangul = character - HangulBase;
        if ((uint)hangul < HangulCount)
        {
            int trail = hangul % TrailCount;
            first = trail == 0 ? LeadBase + (hangul / (VowelCount * TrailCount)) : character - trail;
            second = trail == 0 ? VowelBase + (hangul / TrailCount % VowelCount) : TrailBase + trail;
            return true;
        }

        bool found = Decompositions.TryGetValue(character, out (int First, int Second) pair);
        (first, second) = pair;
        return found;
    }

    public static bool TryCompose(int first, int second, out int composed)
    {
        if ((uint)(first - LeadBase) < LeadCount && (uint)(second - VowelBase) < VowelCount)
        {
            composed = HangulBase + ((((first - LeadBase) * VowelCount) + second - VowelBase) * TrailCount);
            return true;
        }

        if ((uint)(first - HangulBase) < HangulCount && (first - HangulBase) % TrailCount == 0
            && (uint)(second - TrailBase - 1) < TrailCount - 1)
        {
            composed = first + second - TrailBase;
            return true;
        }

        return Compositions.TryGetValue(PairKey(first, second), out composed);
    }

    private static ushort[] BuildPages(Dictionary<int, ushort> flags)
    {
        const int PageLength = 1 << PageBits;
        int[] used = [.. flags.Keys.Select(character => character >> PageBits).Distinct().Order()];
        ushort[] pages = new ushort[(used.Length + 1) * PageLength];
        for (int page = 0; page < used.Length; page++) PageStarts[used[page]] = (ushort)((page + 1) * PageLength);
        foreach ((int character, ushort flag) in flags)
        {
            pages[PageStarts[character >> PageBits] + (character & (PageLength - 1))] = flag;
        }

        return pages;
    }

    private static long PairKey(int first, int second) => ((long)first << 32) | (uint)second;

    private static int ReadNumber(ReadOnlySpan<byte> data, ref int position)
    {
        int number = 0;
        for (int shift = 0; ; shift += 7)
        {
            byte part = data[position++];
            number |= (part & 0x7F) << shift;
            if (part < 0x80) return number;
        }
    }
}
