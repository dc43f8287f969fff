using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>Rules of batches; their numbers are those of the faults of files and machines that they meet.</summary>
public static class BatchRules
{
    public static readonly Rule SameWork = new("IO-111", "a batch goes on with the version and the sources that it was planned with");
    public static readonly Rule WellFormed = new("IO-119", "files of jobs and manifests hold what they must and nothing else");
    public static readonly Rule PathsInside = new("IO-120", "outputs of a batch stay in the folder of its manifest");

    public static IReadOnlyList<Rule> All { get; } = [SameWork, WellFormed, PathsInside];
}
