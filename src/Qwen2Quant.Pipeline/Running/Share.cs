namespace Qwen2Quant.Pipeline.Running;

/// <summary>One of several equal shares of numbered work: number <paramref name="Index"/>, from 0, of <paramref name="Count"/>.</summary>
public sealed record Share(int Index, int Count)
{
    /// <summary>Whether a unit is in this share.</summary>
    public bool Takes(int unit) => unit % Count == Index;
}
