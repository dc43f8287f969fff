namespace Qwen2Quant.Core.Errors;

/// <summary>
/// One rule that an input must satisfy. Its id is stable: messages, tests and scripts name it.
/// Each rule lives in the catalogue beside the code that enforces it, and has in the tests a file that breaks only it
/// and one that just satisfies it.
/// </summary>
/// <param name="Id">Family and number, for example <c>ST-22</c> or <c>GG-48</c>.</param>
/// <param name="Title">What must hold, in one line.</param>
public sealed record Rule(string Id, string Title)
{
    public override string ToString() => Id;
}
