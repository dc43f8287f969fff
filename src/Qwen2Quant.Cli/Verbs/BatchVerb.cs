using System.CommandLine;
using System.Globalization;
using Qwen2Quant.Cli.Output;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Pipeline.Batch;
using Qwen2Quant.Pipeline.Publishing;
using Qwen2Quant.Pipeline.Running;

namespace Qwen2Quant.Cli.Verbs;

internal static class BatchVerb
{
    private static readonly TimeSpan WatchInterval = TimeSpan.FromSeconds(1);

    public static Command Create(VerbRunner run)
    {
        Verb verb = new(
            "batch",
            "Makes many models in many schemes: planned as a whole, done by any number of workers, resumable at any moment.",
            "batch plan jobs.json --out quantized",
            "batch work --manifest quantized/manifest.json");
        foreach (Verb part in (Verb[])[Plan(run), Work(run), Status(run), Merge(run), Report(run)]) verb.Subcommands.Add(part);
        return verb;
    }

    private static Verb Plan(VerbRunner run)
    {
        Argument<string> jobs = new("JOBS") { Description = "JSON file of models, schemes and what is asked of them" };
        Option<string> output = new("--out", "-o") { Description = "Folder of the manifest and the outputs; it is created", HelpName = "DIR", Required = true };
        Option<bool> force = new("--force") { Description = "Plan over another manifest, and replace outputs that are none of this batch" };
        Option<bool> dryRun = new("--dry-run") { Description = "Print the plan; write nothing" };
        Verb verb = new("plan", "Opens every model, plans every output, refuses what would be refused later, and writes the manifest.", "batch plan jobs.json --out quantized --dry-run");
        verb.Arguments.Add(jobs);
        foreach (Option option in new Option[] { output, force, dryRun }) verb.Options.Add(option);
        verb.Options.Add(ModelOptions.Memory);
        verb.SetAction(parsed => run(parsed, session =>
        {
            string target = session.Get(output);
            BatchPlanner planner = new(session.Get(jobs), target, session.Get(force), session.Context);
            BatchManifest? manifest = planner.Plan();
            if (manifest is null)
            {
                foreach (QuantException problem in planner.Problems.SkipLast(1)) session.Error.WriteLine($"error: {problem.Message}");
                throw planner.Problems[^1];
            }

            if (!session.Get(dryRun)) manifest.Publish(session.Context.Files, target, session.Get(force));
            session.Print(manifest, BatchJson.Default.BatchManifest, writer => BatchText.Write(writer, manifest));
            return ExitCodes.Done;
        }));
        return verb;
    }

    private static Verb Work(VerbRunner run)
    {
        Option<string> manifestPath = Manifest();
        Option<int?> index = new("--index") { Description = "Only this item, from 0, and the statistics that it shares with others: for arrays of jobs", HelpName = "N" };
        Option<int> slots = new("--jobs") { Description = "Tasks at once, as --memory allows", HelpName = "K", DefaultValueFactory = _ => 1 };
        Option<int> lease = new("--lease") { Description = "Seconds without a sign of life after which the task of another machine's worker is taken over", HelpName = "SECONDS", DefaultValueFactory = _ => 60 };
        Option<bool> retry = new("--retry") { Description = "Try tasks again that failed" };
        Verb verb = new(
            "work",
            "Does what nobody is at, until nothing is left. Any number of workers, on any number of machines, may be at one batch; one that is killed loses what it was at.",
            "batch work --manifest quantized/manifest.json --jobs 2 --memory 16GB",
            "batch work --manifest quantized/manifest.json --index 7");
        foreach (Option option in new Option[] { manifestPath, index, slots, lease, retry }) verb.Options.Add(option);
        verb.Options.Add(ModelOptions.Memory);
        verb.SetAction(parsed => run(parsed, session =>
        {
            if (session.Get(slots) is < 1 or > 1024) throw new QuantException(ErrorKind.Usage, "--jobs is out of range") { Found = $"{session.Get(slots)}", Expected = "1 to 1024" };
            if (session.Get(lease) is < 1 or > 86400) throw new QuantException(ErrorKind.Usage, "--lease is out of range") { Found = $"{session.Get(lease)}", Expected = "1 to 86400 seconds" };
            BatchManifest manifest = BatchManifest.Read(session.Context.Files, session.Get(manifestPath), out string folder);
            BatchWorkOptions options = new(session.Parsed.GetValue(index), session.Get(slots), session.Get(retry), TimeSpan.FromSeconds(session.Get(lease)));
            BatchStatus status = new BatchWorker(manifest, folder, options, session.Context, line => Say(session, line)).Run();
            session.Print(status, BatchJson.Default.BatchStatus, writer => BatchText.WriteSummary(writer, status));
            return ExitCode(options.Index is { } only ? [status.Items[only]] : status.Items);
        }));
        return verb;
    }

    private static Verb Status(VerbRunner run)
    {
        Option<string> manifestPath = Manifest();
        Option<bool> watch = new("--watch") { Description = "Print again whenever something changed, until nothing runs or waits" };
        Verb verb = new("status", "Says how far a batch is.", "batch status --manifest quantized/manifest.json --watch");
        verb.Options.Add(manifestPath);
        verb.Options.Add(watch);
        verb.SetAction(parsed => run(parsed, session =>
        {
            BatchManifest manifest = BatchManifest.Read(session.Context.Files, session.Get(manifestPath), out string folder);
            BatchStatus status = BatchStatus.Of(manifest, folder, session.Context.Files);
            Print(session, status);
            while (session.Get(watch) && status.Running + status.Waiting > 0)
            {
                if (session.Context.Cancellation.WaitHandle.WaitOne(WatchInterval)) break;
                BatchStatus now = BatchStatus.Of(manifest, folder, session.Context.Files);
                if (!now.Items.SequenceEqual(status.Items)) Print(session, now);
                status = now;
            }

            return ExitCodes.Done;
        }));
        return verb;
    }

    private static Verb Merge(VerbRunner run)
    {
        Option<string> manifestPath = Manifest();
        Verb verb = new("merge", "Checks every output against its receipt by its hash and collects the receipts in results.json.", "batch merge --manifest quantized/manifest.json");
        verb.Options.Add(manifestPath);
        verb.SetAction(parsed => run(parsed, session =>
        {
            BatchManifest manifest = BatchManifest.Read(session.Context.Files, session.Get(manifestPath), out string folder);
            BatchResults results = BatchResults.Merge(manifest, folder, session.Context.Files, session.Context.Cancellation);
            session.Print(results, BatchJson.Default.BatchResults, writer => BatchText.Write(writer, results));
            return results.Missing.Count + results.Damaged.Count > 0 ? ExitCodes.Substituted : results.Rejected > 0 ? ExitCodes.VerificationFailed : ExitCodes.Done;
        }));
        return verb;
    }

    private static Verb Report(VerbRunner run)
    {
        Option<string> manifestPath = Manifest();
        Option<string?> output = new("--out", "-o") { Description = "Path of the page [default: report.html beside the manifest]", HelpName = "PATH" };
        Verb verb = new("report", "Writes one page with a table and plots of size against perplexity and divergence, for each model.", "batch report --manifest quantized/manifest.json");
        verb.Options.Add(manifestPath);
        verb.Options.Add(output);
        verb.SetAction(parsed => run(parsed, session =>
        {
            BatchManifest manifest = BatchManifest.Read(session.Context.Files, session.Get(manifestPath), out string folder);
            string path = session.Parsed.GetValue(output) ?? Path.Combine(folder, "report.html");
            BatchStatus status = BatchStatus.Of(manifest, folder, session.Context.Files);
            byte[] page = System.Text.Encoding.UTF8.GetBytes(BatchReportPage.Write(Path.GetFileName(folder), Conversion.Version, status.Rows()));
            PendingOutput.PublishSmallFile(session.Context.Files, path, page);
            session.Print(new BatchPage(path, page.Length, status.Total), CliJson.Default.BatchPage, writer => writer.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{path}: {status.Total} items, {page.Length} bytes")));
            return ExitCodes.Done;
        }));
        return verb;
    }

    private static Option<string> Manifest() => new("--manifest", "-m") { Description = "Manifest that `batch plan` wrote, or its folder", HelpName = "M", Required = true };

    /// <summary>The worst of what became of items: a gate that failed is told from work that is missing.</summary>
    private static int ExitCode(IReadOnlyList<BatchItemStatus> items) =>
        items.Any(item => item.State is not (BatchItemStatus.Done or BatchItemStatus.Rejected)) ? ExitCodes.Substituted
        : items.Any(item => item.State == BatchItemStatus.Rejected) ? ExitCodes.VerificationFailed : ExitCodes.Done;

    private static void Say(Session session, string line)
    {
        if (!session.Quiet) session.Error.WriteLine(line);
    }

    private static void Print(Session session, BatchStatus status) => session.Print(status, BatchJson.Default.BatchStatus, writer => BatchText.Write(writer, status));
}
