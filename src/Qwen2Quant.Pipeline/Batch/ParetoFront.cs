namespace Qwen2Quant.Pipeline.Batch;

/// <summary>The outputs that no other beats in size and loss at once.</summary>
internal static class ParetoFront
{
    /// <summary>Positions on the front by size; equal outputs are on it together.</summary>
    public static int[] Find(IReadOnlyList<(double Size, double Loss)> outputs)
    {
        int[] bySize = [.. Enumerable.Range(0, outputs.Count).OrderBy(i => outputs[i].Size).ThenBy(i => outputs[i].Loss)];
        List<int> front = [];
        foreach (int i in bySize)
        {
            if (front.Count == 0 || outputs[i].Loss < outputs[front[^1]].Loss || outputs[i] == outputs[front[^1]]) front.Add(i);
        }

        return [.. front];
    }
}
