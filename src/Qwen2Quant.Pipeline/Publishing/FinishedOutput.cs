using Qwen2Quant.Core.Errors;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Core.Tensors;
using Qwen2Quant.Pipeline.Planning;
using Qwen2Quant.Pipeline.Reports;

namespace Qwen2Quant.Pipeline.Publishing;

/// <summary>What stands where an output is to be, and whether it is that output.</summary>
internal sealed class FinishedOutput(IFileLayer files, ConversionPlan plan, string reportPath)
{
    /// <summary>The report of the output when it is there, whole, and was made with these settings; null when there is nothing, or it may be replaced.</summary>
    /// <exception cref="QuantException">Usage: it was made with other settings, or nothing tells how.</exception>
    public ConversionReport? Find(IReadOnlyDictionary<string, string> settings, bool force)
    {
        // A report is written before its output has the name: while the unfinished output is there, what has the name is something else.
        bool isUnfinished = files.FileExists(PendingOutput.TemporaryPathOf(plan.Target)) || files.DirectoryExists(PendingOutput.TemporaryPathOf(plan.Target));
        if (isUnfinished || !(files.FileExists(plan.Target) || files.DirectoryExists(plan.Target))) return null;
        ConversionReport? report = JsonFile.ReadOrNull(files, reportPath, ReportJson.Default.ConversionReport);
        string? difference = report?.Settings is { } found ? RunSettings.Difference(found, settings) : "no report that says how it was made";
        if (difference is null && IsWhole()) return report;
        if (force) return null;
        throw new QuantException(ErrorKind.Usage, difference is null ? "the output exists, and files of it are missing or have another length" : "the output exists, and was made with other settings")
        {
            Path = plan.Target, Found = difference, Remedy = "Choose another path, or pass --force to replace it.",
        };
    }

    private bool IsWhole()
    {
        string folder = plan.IsFolder ? plan.Target : Path.GetDirectoryName(Path.GetFullPath(plan.Target))!;
        foreach (PlannedFile file in plan.Files)
        {
            string path = plan.Kind == OutputKind.File ? plan.Target : Path.Combine(folder, file.Name);
            if (!files.FileExists(path) || files.IdentifyTyped(path).Length != file.ByteLength) return false;
        }

        return plan.Companions.All(companion => files.FileExists(Path.Combine(folder, companion.Name)));
    }
}
