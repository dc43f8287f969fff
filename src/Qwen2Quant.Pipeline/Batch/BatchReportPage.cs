using System.Globalization;
using System.Text;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>
/// What a batch made as one page that needs nothing else: a section for each model with plots and a table. HTML that is
/// XML as well; the same rows give the same bytes.
/// </summary>
public static class BatchReportPage
{
    /// <summary>The document.</summary>
    /// <param name="title">Heading of the page.</param>
    /// <param name="version">The program's.</param>
    /// <param name="rows">All items; models come in the order in which they are first named.</param>
    public static string Write(string title, string version, IReadOnlyList<BatchRow> rows)
    {
        StringBuilder page = new();
        IGrouping<string, BatchRow>[] models = [.. rows.GroupBy(row => row.Model, StringComparer.Ordinal)];
        WriteHead(page, title, version);
        page.Append(CultureInfo.InvariantCulture, $"<body>\n<header>\n<h1>{ReportText.Escape(title)}</h1>\n<p class=\"sub\">{ReportText.Escape(Overview(rows, models.Length))}</p>\n</header>\n");
        if (models.Length > 1) WriteContents(page, models);
        page.Append("<main>\n");
        if (rows.Count == 0) page.Append("<p>The batch has no items.</p>\n");
        for (int i = 0; i < models.Length; i++) new ModelSection(page, i + 1, models[i].Key, [.. models[i]]).Write();
        page.Append("</main>\n");
        WriteNotes(page, version);
        page.Append(CultureInfo.InvariantCulture, $"<script>\n{ReportScript.Text}</script>\n</body>\n</html>\n");
        return page.ToString();
    }

    private static void WriteHead(StringBuilder page, string title, string version)
    {
        page.Append("<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
        page.Append("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\"/>\n");
        page.Append("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"color-scheme\" content=\"light dark\"/>\n");
        page.Append(CultureInfo.InvariantCulture, $"<meta name=\"generator\" content=\"Qwen2Quant {ReportText.Escape(version)}\"/>\n<title>{ReportText.Escape(title)}</title>\n<style>\n{ReportStyle.Text}</style>\n</head>\n");
    }

    private static string Overview(IReadOnlyList<BatchRow> rows, int models)
    {
        string[] states = [.. StateCounts.Of(rows).Select(state => $"{state.Count.ToString(CultureInfo.InvariantCulture)} {state.State}")];
        string counted = $"{ReportText.Count(rows.Count, "item", "items")} of {ReportText.Count(models, "model", "models")}";
        return states.Length == 0 ? counted : $"{counted}: {string.Join(", ", states)}";
    }

    private static void WriteContents(StringBuilder page, IGrouping<string, BatchRow>[] models)
    {
        page.Append("<nav aria-label=\"Models\">\n<ul>\n");
        for (int i = 0; i < models.Length; i++)
        {
            page.Append(CultureInfo.InvariantCulture, $"<li><a href=\"#m{i + 1}\">{ReportText.Escape(models[i].Key)}</a> <span class=\"muted\">{models[i].Count(row => row.IsDone)} of {models[i].Count()} done</span></li>\n");
        }

        page.Append("</ul>\n</nav>\n");
    }

    private static void WriteNotes(StringBuilder page, string version)
    {
        page.Append("<footer>\n<h2>How to read this page</h2>\n<dl>\n");
        Note(page, "Mean KL divergence", "how far the next-token probabilities are from the source model's, in nats, averaged over the positions of the evaluation text; 0 is the source itself. 99 %: what all but one in a hundred positions stay below.");
        Note(page, "Perplexity", "how well the text itself is predicted; its ratio is to the source's. An output can have a lower perplexity than its source by chance; the divergence shows that they still differ.");
        Note(page, "Same top token", "share of positions at which the most likely token is the source's.");
        Note(page, "±", "one standard error over the positions of the text.");
        Note(page, "Front", "the accepted outputs that no other accepted output beats in size and loss at once: those to choose from.");
        Note(page, "Rejected", "converted and measured, but past a limit that was set for the batch.");
        page.Append(CultureInfo.InvariantCulture, $"</dl>\n<p class=\"muted\">Qwen2Quant {ReportText.Escape(version)}</p>\n</footer>\n");
    }

    private static void Note(StringBuilder page, string term, string text) =>
        page.Append(CultureInfo.InvariantCulture, $"<div><dt>{term}</dt><dd>{text}</dd></div>\n");
}

/// <summary>How many items are in each state.</summary>
internal static class StateCounts
{
    private static readonly string[] Order = ["done", "rejected", "failed", "running", "waiting"];

    /// <summary>States that occur, known ones first.</summary>
    public static (string State, int Count)[] Of(IEnumerable<BatchRow> rows) =>
    [
        .. rows.GroupBy(row => row.State, StringComparer.Ordinal)
            .OrderBy(group => Array.IndexOf(Order, group.Key) is var at && at < 0 ? Order.Length : at)
            .ThenBy(group => group.Key, StringComparer.Ordinal)
            .Select(group => (group.Key, group.Count())),
    ];
}
