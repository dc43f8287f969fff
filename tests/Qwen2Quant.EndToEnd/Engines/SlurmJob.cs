using System.Globalization;

namespace Qwen2Quant.EndToEnd.Engines;

/// <summary>A job, or a task of an array, as <c>scontrol show job --oneliner</c> describes it.</summary>
/// <param name="Id">Its own number, also as a task; the last task of an array has that of the array.</param>
/// <param name="Task">Number in the array; null for other jobs, and for the tasks of an array that have not started.</param>
/// <param name="Node">Where it runs or ran; null before that.</param>
/// <param name="ExitCode">Exit code and signal, as in <c>143:0</c>.</param>
/// <param name="Restarts">How often it went back into the queue.</param>
public sealed record SlurmJob(string Id, int? Task, string? Node, string State, string ExitCode, int Restarts)
{
    public bool IsOver => State is not ("PENDING" or "RUNNING" or "COMPLETING" or "CONFIGURING" or "SUSPENDED" or "REQUEUED");

    public static SlurmJob Parse(string line)
    {
        Dictionary<string, string> fields = [];
        foreach (string word in line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            int equals = word.IndexOf('=', StringComparison.Ordinal);
            if (equals > 0) fields.TryAdd(word[..equals], word[(equals + 1)..]);
        }

        int? task = fields.TryGetValue("ArrayTaskId", out string? number) && int.TryParse(number, CultureInfo.InvariantCulture, out int value) ? value : null;
        return new SlurmJob(fields["JobId"], task, fields.GetValueOrDefault("BatchHost"), fields["JobState"], fields["ExitCode"], int.Parse(fields["Restarts"], CultureInfo.InvariantCulture));
    }
}
