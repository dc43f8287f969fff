using System.Globalization;
using System.Text;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>One model's part of the report: summary, plots, table, messages.</summary>
internal sealed class ModelSection
{
    /// <summary>Perplexities that differ by more get a logarithmic axis.</summary>
    private const double WideRatio = 2.5;

    private readonly StringBuilder _page;
    private readonly int _number;
    private readonly string _model;
    private readonly BatchRow[] _rows;
    private readonly string[] _labels;
    private readonly SizeUnit _unit;
    private readonly double[] _sources;
    private readonly HashSet<int> _front;

    /// <param name="number">Of the section, from 1.</param>
    /// <param name="rows">At least one.</param>
    public ModelSection(StringBuilder page, int number, string model, IEnumerable<BatchRow> rows)
    {
        (_page, _number, _model) = (page, number, model);
        _rows = [.. rows.OrderBy(row => row.Bytes)];
        _labels = ShortestLabels(_rows);
        _unit = SizeUnit.For(_rows[^1].Bytes);
        _sources = [.. _rows.Where(row => IsPositive(row.BasePerplexity)).Select(row => row.BasePerplexity!.Value).DistinctBy(ReportText.Perplexity).Order()];
        int[] measured = [.. Enumerable.Range(0, _rows.Length).Where(i => _rows[i].IsDone && ReportText.IsNumber(_rows[i].MeanKld))];
        _front = [.. ParetoFront.Find([.. measured.Select(i => ((double)_rows[i].Bytes, _rows[i].MeanKld!.Value))]).Select(i => measured[i])];
    }

    public void Write()
    {
        _page.Append(CultureInfo.InvariantCulture, $"<section id=\"m{_number}\" aria-labelledby=\"m{_number}-h\">\n<h2 id=\"m{_number}-h\">{ReportText.Escape(_model)}</h2>\n<p class=\"summary\">{ReportText.Escape(Summary())}</p>\n");
        bool hasDivergences = _rows.Any(row => ReportText.IsNumber(row.MeanKld)), hasPerplexities = _rows.Any(row => IsPositive(row.Perplexity));
        if (hasDivergences || hasPerplexities) WriteLegend();
        if (hasDivergences) WriteDivergences();
        if (hasPerplexities) WritePerplexities();
        string? missing = (hasDivergences, hasPerplexities) switch
        {
            (false, false) => "Nothing was measured, so there are no plots: no evaluation was asked for, or none has finished.",
            (false, true) => "No KL divergence was measured, so there is no plot of it.",
            (true, false) => "No perplexity was measured, so there is no plot of it.",
            _ => null,
        };
        if (missing is not null) _page.Append(CultureInfo.InvariantCulture, $"<p class=\"missing\">{missing}</p>\n");
        new ReportTable(_page, _number, _rows, _unit, _front).Write(_model);
        WriteMessages();
        _page.Append("</section>\n");
    }

    private static bool IsPositive(double? value) => ReportText.IsNumber(value) && value > 0;

    /// <summary>Schemes without their families where that is clear, with their methods where it is not.</summary>
    private static string[] ShortestLabels(BatchRow[] rows)
    {
        return [.. rows.Select(row => First(row, other => SchemeFamily.ShortName(other.Scheme), other => other.Scheme, other => $"{SchemeFamily.ShortName(other.Scheme)} ({other.Method})", other => $"{other.Scheme} ({other.Method})"))];

        string First(BatchRow row, params Func<BatchRow, string>[] names)
        {
            foreach (Func<BatchRow, string> name in names)
            {
                string label = name(row);
                if (rows.Count(other => name(other) == label) == 1) return label;
            }

            return row.Name;
        }
    }

    private string Summary()
    {
        StringBuilder text = new();
        (string State, int Count)[] states = StateCounts.Of(_rows);
        if (states is [("done", _)]) text.Append(_rows.Length == 1 ? "The one item is done." : string.Create(CultureInfo.InvariantCulture, $"All {_rows.Length} items are done."));
        else text.Append(ReportText.Count(_rows.Length, "item", "items")).Append(": ").AppendJoin(", ", states.Select(state => string.Create(CultureInfo.InvariantCulture, $"{state.Count} {state.State}"))).Append('.');

        BatchRow[] done = [.. _rows.Where(row => row.IsDone)];
        if (done.Length > 1)
        {
            text.Append(CultureInfo.InvariantCulture, $" From {_unit.Show(done[0].Bytes)} {_unit.Name} ({done[0].Scheme}) to {_unit.Show(done[^1].Bytes)} {_unit.Name} ({done[^1].Scheme}).");
        }

        if (done.Where(row => ReportText.IsNumber(row.MeanKld)).MinBy(row => row.MeanKld) is { } closest)
        {
            text.Append(CultureInfo.InvariantCulture, $" Closest to the source: {closest.Scheme}, mean KL divergence {ReportText.Divergence(closest.MeanKld!.Value)} at {_unit.Show(closest.Bytes)} {_unit.Name}.");
        }

        if (_sources.Length == 1) text.Append(CultureInfo.InvariantCulture, $" Perplexity of the source: {ReportText.Perplexity(_sources[0])}.");
        if (_sources.Length > 1) text.Append(" The items were measured on different texts or windows, as the perplexities of their source differ: compare ratios, not perplexities.");
        return text.ToString();
    }

    private void WriteLegend()
    {
        _page.Append("<ul class=\"legend\">\n");
        foreach (SchemeFamily family in SchemeFamily.All)
        {
            if (_rows.Any(row => SchemeFamily.Of(row.Scheme) == family)) LegendEntry($"<span class=\"{family.Style}\">{Symbol(family.Marker(5), "mark")}</span>", family.Name);
        }

        string circle = SchemeFamily.All[0].Marker(5);
        LegendEntry("<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"key wide\" viewBox=\"-14 -7 28 14\" aria-hidden=\"true\"><path class=\"front\" d=\"M-14 -4H0V4H14\"/></svg>", "front: larger points, bold");
        if (_rows.Any(row => !row.IsDone && (ReportText.IsNumber(row.MeanKld) || IsPositive(row.Perplexity))))
        {
            LegendEntry($"<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"key\" viewBox=\"-7 -7 14 14\" aria-hidden=\"true\"><g class=\"pt f-other out\"><path d=\"{circle}\"/><path class=\"cross\" d=\"M-5 -5L5 5M-5 5L5 -5\"/></g></svg>", "hollow, crossed: rejected");
        }

        LegendEntry(Symbol("M0 -6V6M-3 -6H3M-3 6H3", "bar"), "± one standard error");
        _page.Append("</ul>\n");
    }

    private void LegendEntry(string symbol, string text) => _page.Append(CultureInfo.InvariantCulture, $"<li>{symbol} {text}</li>\n");

    private static string Symbol(string path, string style) =>
        $"<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"key\" viewBox=\"-7 -7 14 14\" aria-hidden=\"true\"><path class=\"{style}\" d=\"{path}\"/></svg>";

    private void WriteDivergences()
    {
        List<PlotPoint> points = [];
        for (int i = 0; i < _rows.Length; i++)
        {
            if (ReportText.IsNumber(_rows[i].MeanKld)) points.Add(Point(i, _rows[i].MeanKld!.Value, _rows[i].MeanKldStandardError, "mean KL divergence", ReportText.Divergence));
        }

        string note = points.Any(point => point.Loss <= 0) ? " Values of 0 and below lie on the lower edge." : "";
        WriteFigure("kld", "Size and mean KL divergence from the source", "mean KL divergence, nats", points, [], logarithmic: true, note);
    }

    private void WritePerplexities()
    {
        List<PlotPoint> points = [];
        for (int i = 0; i < _rows.Length; i++)
        {
            if (IsPositive(_rows[i].Perplexity)) points.Add(Point(i, _rows[i].Perplexity!.Value, _rows[i].PerplexityStandardError, "perplexity", ReportText.Perplexity));
        }

        double[] sources = _sources.Length <= 3 ? _sources : [];
        double[] values = [.. points.Select(point => point.Loss), .. sources];
        WriteFigure("ppl", "Size and perplexity", "perplexity", points, sources, values.Max() > WideRatio * values.Min(), sources.Length == 0 ? "" : " Dashed: the source.");
    }

    private PlotPoint Point(int i, double loss, double? error, string what, Func<double, string> show)
    {
        BatchRow row = _rows[i];
        string method = row.Method is null ? "" : $" by {row.Method}", doubt = ReportText.IsNumber(error) ? " ± " + show(error!.Value) : "", state = row.IsDone ? "" : $", {row.State}";
        string description = $"{row.Scheme}{method}{state}: {_unit.Show(row.Bytes)} {_unit.Name}, {what} {show(loss)}{doubt}";
        return new PlotPoint($"m{_number}-{i + 1}", _labels[i], description, SchemeFamily.Of(row.Scheme), row.IsDone, Math.Max(0, row.Bytes) / _unit.Bytes, loss, error);
    }

    private void WriteFigure(string kind, string title, string lossTitle, List<PlotPoint> points, double[] references, bool logarithmic, string note)
    {
        string id = $"m{_number}-{kind}";
        StringBuilder plot = new();
        int unlabelled = ScatterPlot.Write(plot, id, $"{title}, {_model}", $"size, {_unit.Name}", lossTitle, points, references, logarithmic);
        if (unlabelled > 0) note += $" {ReportText.Count(unlabelled, "point has", "points have")} no room for a name: the table has them.";
        _page.Append(CultureInfo.InvariantCulture, $"<figure>\n<figcaption><strong>{title}.</strong> Smaller and closer is at the lower left.{note}</figcaption>\n<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"Plot: {title}\">\n{plot}</div>\n</figure>\n");
    }

    private void WriteMessages()
    {
        BatchRow[] said = [.. _rows.Where(row => row.Message is { Length: > 0 })];
        if (said.Length == 0) return;
        _page.Append("<h3>Messages</h3>\n<dl class=\"messages\">\n");
        foreach (BatchRow row in said)
        {
            _page.Append(CultureInfo.InvariantCulture, $"<div><dt>{ReportText.Escape(row.Name)} <span class=\"state s-{ReportTable.StateStyle(row.State)}\">{ReportText.Escape(row.State)}</span></dt><dd>{ReportText.Escape(row.Message!)}</dd></div>\n");
        }

        _page.Append("</dl>\n");
    }
}
