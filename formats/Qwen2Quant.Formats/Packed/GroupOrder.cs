using System.Runtime.InteropServices;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Tensors;

namespace Qwen2Quant.Formats.Packed;

/// <summary>Reads the group of each input, <c>g_idx</c> I32 [I].</summary>
internal static class GroupOrder
{
    /// <summary>The inputs by group, and by input inside a group; null where that is their order.</summary>
    /// <exception cref="QuantException">PK-3, PK-4.</exception>
    public static int[]? Read(ModuleParts parts, TensorEntry entry, int inputCount, int groupLength)
    {
        parts.RequireType(entry, PlainTypes.I32);
        parts.RequireShape(entry, new Shape(inputCount));
        int[] groups = new int[inputCount];
        parts.Source.ReadRaw(entry, 0, MemoryMarshal.AsBytes(groups.AsSpan()));
        int[] filled = new int[groups.Length / groupLength];
        int[] order = new int[groups.Length];
        bool isSorted = true;
        for (int column = 0; column < groups.Length; column++)
        {
            int group = groups[column];
            if ((uint)group >= (uint)filled.Length) throw BadGroup($"group {group} of input {column}", $"0 to {filled.Length - 1}");
            if (filled[group] == groupLength) throw BadGroup($"input {column} as one more of group {group}", $"{groupLength} inputs a group");
            isSorted &= group == column / groupLength;
            order[(group * groupLength) + filled[group]++] = column;
        }

        return isSorted ? null : order;

        QuantException BadGroup(string found, string expected) => new(ErrorKind.InvalidInput, "g_idx does not deal the inputs to groups")
        {
            Rule = PackedRules.Groups, Path = parts.Path, Tensor = entry.Name, Found = found, Expected = expected,
        };
    }
}
