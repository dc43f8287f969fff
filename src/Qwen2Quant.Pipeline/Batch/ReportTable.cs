using System.Globalization;
using System.Text;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>All items of a model as a table, smallest first; each cell carries what it sorts by.</summary>
internal sealed class ReportTable(StringBuilder page, int section, BatchRow[] rows, SizeUnit unit, IReadOnlySet<int> front)
{
    private static readonly string[] States = ["done", "rejected", "failed", "running", "waiting"];

    private readonly Column[] _columns =
    [
        new("bytes", $"size, {unit.Name}", -1, row => row.Bytes, unit.ShowValue),
        new("bits_per_weight", "bits per weight", -1, row => row.BitsPerWeight, value => ReportText.Number(value, "0.00")),
        new("perplexity", "perplexity", -1, row => row.Perplexity, ReportText.Perplexity) { Error = row => row.PerplexityStandardError },
        new("perplexity_ratio", "ratio", -1, row => row.PerplexityRatio, value => ReportText.Number(value, "0.0000")),
        new("mean_kld", "mean KL", -1, row => row.MeanKld, ReportText.Divergence) { Error = row => row.MeanKldStandardError },
        new("kld_p99", "KL 99\u00a0%", -1, row => row.KldP99, value => ReportText.Number(value, "0.0000")),
        new("top_token_agreement", "same top token", 1, row => row.TopTokenAgreement, value => ReportText.Number(100 * value, "0.00") + "\u00a0%"),
        new("seconds", "time", 0, row => row.Seconds, ReportText.Duration),
    ];

    /// <summary>The class of a state, also of one that is not known.</summary>
    public static string StateStyle(string state) => States.Contains(state, StringComparer.Ordinal) ? state : "other";

    /// <summary>Appends the table.</summary>
    public void Write(string model)
    {
        double?[] best = [.. _columns.Select(Best)];
        string caption = best.Any(value => value is not null) ? "Bold: the best accepted value of a column." : "";
        page.Append(CultureInfo.InvariantCulture, $"<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Table of {ReportText.Escape(model)}\">\n<table>\n<caption><span><span>Items by size, smallest first.</span> {caption}</span></caption>\n<thead>\n<tr>");
        page.Append("<th scope=\"col\" data-key=\"scheme\">scheme</th><th scope=\"col\" data-key=\"method\">method</th><th scope=\"col\" data-key=\"state\">state</th>");
        foreach (Column column in _columns)
        {
            string sorted = column.Key == "bytes" ? " aria-sort=\"ascending\"" : "";
            page.Append(CultureInfo.InvariantCulture, $"<th scope=\"col\" class=\"n\" data-key=\"{column.Key}\" data-n=\"1\"{sorted}>{column.Title}</th>");
        }

        page.Append("</tr>\n</thead>\n<tbody>\n");
        for (int i = 0; i < rows.Length; i++) WriteRow(i, best);
        page.Append("</tbody>\n</table>\n</div>\n");
    }

    private void WriteRow(int i, double?[] best)
    {
        BatchRow row = rows[i];
        SchemeFamily family = SchemeFamily.Of(row.Scheme);
        string name = ReportText.Escape(row.Name), scheme = ReportText.Escape(row.Scheme), state = ReportText.Escape(row.State);
        string tag = front.Contains(i) ? " <span class=\"tag\">front</span>" : "";
        string shown = rows.Count(other => other.Scheme == row.Scheme) > 1 ? $"<span class=\"name\">{name}</span>" : "";
        page.Append(CultureInfo.InvariantCulture, $"<tr id=\"m{section}-{i + 1}\"{(row.IsDone ? "" : " class=\"off\"")}><th scope=\"row\" data-v=\"{scheme}\" title=\"{name}\"><span class=\"{family.Style}\"><svg xmlns=\"http://www.w3.org/2000/svg\" class=\"key\" viewBox=\"-7 -7 14 14\" aria-hidden=\"true\"><path class=\"mark\" d=\"{family.Marker(5)}\"/></svg></span> {scheme}{tag}{shown}</th>");
        page.Append(row.Method is null ? $"<td data-v=\"\">{ReportText.Missing}</td>" : $"<td data-v=\"{ReportText.Escape(row.Method)}\">{ReportText.Escape(row.Method)}</td>");
        page.Append(CultureInfo.InvariantCulture, $"<td data-v=\"{state}\"><span class=\"state s-{StateStyle(row.State)}\">{state}</span></td>");
        for (int c = 0; c < _columns.Length; c++) WriteCell(_columns[c], row, best[c]);
        page.Append("</tr>\n");
    }

    private void WriteCell(Column column, BatchRow row, double? best)
    {
        double? value = column.Value(row);
        if (!ReportText.IsNumber(value))
        {
            string text = value is null ? ReportText.Missing : double.IsNaN(value.Value) ? "not a number" : "too large";
            page.Append(CultureInfo.InvariantCulture, $"<td class=\"n\" data-v=\"\">{text}</td>");
            return;
        }

        string shown = column.Show(value!.Value);
        if (row.IsDone && value == best) shown = $"<strong>{shown}</strong>";
        if (column.Error?.Invoke(row) is { } error && ReportText.IsNumber(error)) shown += $" <span class=\"se\">± {column.Show(error)}</span>";
        page.Append(CultureInfo.InvariantCulture, $"<td class=\"n\" data-v=\"{value.Value:R}\">{shown}</td>");
    }

    /// <summary>The best accepted value, or null where there is nothing to choose.</summary>
    private double? Best(Column column)
    {
        if (column.Better == 0) return null;
        double[] values = [.. rows.Where(row => row.IsDone && ReportText.IsNumber(column.Value(row))).Select(row => column.Value(row)!.Value)];
        if (values.Length < 2 || values.Min() == values.Max()) return null;
        return column.Better < 0 ? values.Min() : values.Max();
    }

    /// <param name="Key">What <c>#sort=</c> names.</param>
    /// <param name="Better">-1 where less is better, 1 where more is, 0 where neither is.</param>
    private sealed record Column(string Key, string Title, int Better, Func<BatchRow, double?> Value, Func<double, string> Show)
    {
        public Func<BatchRow, double?>? Error { get; init; }
    }
}
