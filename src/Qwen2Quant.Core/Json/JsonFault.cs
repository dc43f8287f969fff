namespace Qwen2Quant.Core.Json;

/// <summary>What a JSON text from outside can break before its members are looked at.</summary>
public enum JsonFault
{
    None,

    /// <summary>It is not one well-formed value: comments, trailing commas and anything after the value among it.</summary>
    Syntax,

    /// <summary>A text is not valid Unicode: not UTF-8, or an escaped surrogate that stands alone.</summary>
    Utf8,

    /// <summary>It is nested too deep; <see cref="StrictJson.Read"/> counts that as <see cref="Syntax"/>.</summary>
    Depth,

    /// <summary>An object has two members of one name.</summary>
    DuplicateName,

    /// <summary>It has more bytes than <see cref="Limits.JsonFileBytes"/>.</summary>
    Size,
}

/// <summary>Why <see cref="StrictJson.Read"/> gave up; the caller puts it into words under its own rule.</summary>
/// <param name="ByteOffset">The token at fault.</param>
/// <param name="Name">The name that occurs twice.</param>
/// <param name="Error">What the parser says.</param>
public readonly record struct JsonProblem(JsonFault Fault, long ByteOffset, string? Name = null, Exception? Error = null);
