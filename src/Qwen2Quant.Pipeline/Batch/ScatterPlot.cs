using System.Globalization;
using System.Text;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>One output in a plot.</summary>
/// <param name="Row">Id of its row in the table.</param>
/// <param name="Label">Written beside the point.</param>
/// <param name="Description">All of it in words.</param>
/// <param name="Counts">False for outputs that were not accepted: hollow, and never on the front.</param>
/// <param name="Size">In the unit of the axis.</param>
/// <param name="Error">Standard error of the loss, or null.</param>
internal sealed record PlotPoint(string Row, string Label, string Description, SchemeFamily Family, bool Counts, double Size, double Loss, double? Error);

/// <summary>A plot of losses against sizes as inline SVG: error bars, the front as steps, points with labels.</summary>
internal sealed class ScatterPlot
{
    private const double Width = 920, PlotHeight = 450, Left = 62, Right = 14, Top = 32, Bottom = 46;
    private const double FontSize = 11.5, BoldFactor = 1.08, SmallRadius = 4.6, LargeRadius = 5.6;
    private const int LongestLabel = 30;

    private static readonly PlotBox Area = new(Left, Top, Width - Left - Right, PlotHeight - Top - Bottom);

    private readonly StringBuilder _page;
    private readonly PlotPoint[] _points;
    private readonly PlotScale _sizes, _losses;
    private readonly int[] _front;
    private readonly bool[] _isOnFront;

    private ScatterPlot(StringBuilder page, IReadOnlyList<PlotPoint> points, IReadOnlyList<double> references, bool logarithmic)
    {
        _page = page;
        _points = [.. points.OrderBy(point => point.Size).ThenBy(point => point.Loss)];
        double[] losses = [.. _points.Select(point => point.Loss), .. references];
        double[] ends = [.. losses, .. _points.Where(point => ReportText.IsNumber(point.Error)).SelectMany(point => new[] { point.Loss - point.Error!.Value, point.Loss + point.Error.Value })];
        _sizes = PlotScale.Linear([.. _points.Select(point => point.Size)], 10);
        _losses = logarithmic ? PlotScale.Logarithmic([.. losses, .. ends.Where(end => end > losses.Min() / 3)]) : PlotScale.Linear([.. ends.Select(end => Math.Max(0, end))], 8);
        int[] accepted = [.. Enumerable.Range(0, _points.Length).Where(i => _points[i].Counts)];
        _front = [.. ParetoFront.Find([.. accepted.Select(i => (_points[i].Size, _points[i].Loss))]).Select(i => accepted[i])];
        _isOnFront = new bool[_points.Length];
        foreach (int i in _front) _isOnFront[i] = true;
    }

    /// <summary>Appends the plot.</summary>
    /// <param name="id">Of the plot, unique in the page.</param>
    /// <param name="title">What is shown against what.</param>
    /// <param name="sizeTitle">Of the axis of sizes, with the unit.</param>
    /// <param name="lossTitle">Of the axis of losses.</param>
    /// <param name="points">At least one.</param>
    /// <param name="references">Losses drawn as dashed lines.</param>
    /// <param name="logarithmic">Whether losses are on a logarithmic axis.</param>
    /// <returns>Points whose labels found no room.</returns>
    public static int Write(StringBuilder page, string id, string title, string sizeTitle, string lossTitle, IReadOnlyList<PlotPoint> points, IReadOnlyList<double> references, bool logarithmic) =>
        new ScatterPlot(page, points, references, logarithmic).Write(id, title, sizeTitle, lossTitle, references);

    private int Write(string id, string title, string sizeTitle, string lossTitle, IReadOnlyList<double> references)
    {
        string front = string.Join(", ", _front.Select(i => _points[i].Label));
        string description = $"{ReportText.Count(_points.Length, "output", "outputs")}. {(front.Length == 0 ? "None was accepted." : $"On the front, by size: {front}.")} The table below has all values.";
        _page.Append(CultureInfo.InvariantCulture, $"<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" viewBox=\"0 0 {Width} {PlotHeight}\" role=\"group\" aria-labelledby=\"{id}-t {id}-d\">\n");
        _page.Append(CultureInfo.InvariantCulture, $"<title id=\"{id}-t\">{ReportText.Escape(title)}</title>\n<desc id=\"{id}-d\">{ReportText.Escape(description)}</desc>\n");
        WriteAxes(sizeTitle, lossTitle);
        (List<PlotBox> obstacles, List<PlotLine> lines) = WriteReferences(references);
        WriteFront(lines);
        WriteErrorBars(lines);
        WritePoints();
        int unlabelled = WriteLabels(obstacles, lines);
        _page.Append("</svg>\n");
        return unlabelled;
    }

    private static string Text(double value) => ReportText.Coordinate(value);

    private static string Line(double x1, double y1, double x2, double y2) => $"M{Text(x1)} {Text(y1)}L{Text(x2)} {Text(y2)}";

    private double X(double size) => Area.X + _sizes.At(size) * Area.Width;

    private double Y(double loss) => Area.Bottom - _losses.At(loss) * Area.Height;

    private double Radius(int i) => _isOnFront[i] ? LargeRadius : SmallRadius;

    private void WriteAxes(string sizeTitle, string lossTitle)
    {
        StringBuilder grid = new(), labels = new();
        foreach (PlotTick tick in _sizes.Ticks)
        {
            grid.Append(Line(X(tick.Value), Area.Y, X(tick.Value), Area.Bottom));
            labels.Append(CultureInfo.InvariantCulture, $"<text x=\"{Text(X(tick.Value))}\" y=\"{Text(Area.Bottom + 17)}\" text-anchor=\"middle\">{tick.Label}</text>");
        }

        foreach (PlotTick tick in _losses.Ticks)
        {
            grid.Append(Line(Area.X, Y(tick.Value), Area.Right, Y(tick.Value)));
            labels.Append(CultureInfo.InvariantCulture, $"<text x=\"{Text(Area.X - 8)}\" y=\"{Text(Y(tick.Value) + 4)}\" text-anchor=\"end\">{tick.Label}</text>");
        }

        string scale = _losses.IsLogarithmic ? ", logarithmic" : "";
        _page.Append(CultureInfo.InvariantCulture, $"<path class=\"grid\" d=\"{grid}\"/>\n<path class=\"axis\" d=\"{Line(Area.X, Area.Y, Area.X, Area.Bottom)}L{Text(Area.Right)} {Text(Area.Bottom)}\"/>\n");
        _page.Append(CultureInfo.InvariantCulture, $"<g class=\"ticks\" aria-hidden=\"true\">{labels}</g>\n<g class=\"names\" aria-hidden=\"true\"><text x=\"0\" y=\"15\">{ReportText.Escape(lossTitle + scale)}</text>");
        _page.Append(CultureInfo.InvariantCulture, $"<text x=\"{Text(Area.Right)}\" y=\"{Text(PlotHeight - 8)}\" text-anchor=\"end\">{ReportText.Escape(sizeTitle)}</text></g>\n");
    }

    private (List<PlotBox>, List<PlotLine>) WriteReferences(IReadOnlyList<double> references)
    {
        List<PlotBox> boxes = [];
        List<PlotLine> lines = [];
        foreach (double reference in references)
        {
            double y = Y(reference);
            string label = $"source {ReportText.Perplexity(reference)}";
            PlotBox box = FreePlaceAlong(y, LabelPlacement.WidthOf(label, FontSize));
            boxes.Add(box.Grow(4));
            lines.Add(new PlotLine(Area.X, y, Area.Right, y));
            _page.Append(CultureInfo.InvariantCulture, $"<path class=\"base\" d=\"{Line(Area.X, y, Area.Right, y)}\"/><text class=\"baselabel\" x=\"{Text(box.Right)}\" y=\"{Text(box.Y + 10)}\" text-anchor=\"end\" aria-hidden=\"true\">{label}</text>\n");
        }

        return (boxes, lines);
    }

    /// <summary>A place for a text on a level line that hides the fewest points, rather right than left and above than below.</summary>
    private PlotBox FreePlaceAlong(double y, double width)
    {
        const double gap = 3, step = 20;
        PlotBox best = default;
        int fewest = int.MaxValue;
        for (double x = Area.Right - width - gap; x > Area.X; x -= step)
        {
            foreach (double top in new[] { y - LabelPlacement.Height - gap + 1, y + gap })
            {
                PlotBox box = new(x, top, width, LabelPlacement.Height), wide = box.Grow(LargeRadius + gap);
                int hidden = _points.Count(point => wide.Holds(X(point.Size), Y(point.Loss)));
                if (Area.Holds(box) && hidden < fewest) (best, fewest) = (box, hidden);
            }
        }

        return best;
    }

    private void WriteFront(List<PlotLine> lines)
    {
        if (_front.Length == 0) return;
        StringBuilder path = new();
        (double x, double y) = (X(_points[_front[0]].Size), Area.Y);
        path.Append(CultureInfo.InvariantCulture, $"M{Text(x)} {Text(y)}");
        foreach (int i in _front)
        {
            (double nextX, double nextY) = (X(_points[i].Size), Y(_points[i].Loss));
            path.Append(CultureInfo.InvariantCulture, $"H{Text(nextX)}V{Text(nextY)}");
            lines.Add(new PlotLine(x, y, nextX, y));
            lines.Add(new PlotLine(nextX, y, nextX, nextY));
            (x, y) = (nextX, nextY);
        }

        lines.Add(new PlotLine(x, y, Area.Right, y));
        _page.Append(CultureInfo.InvariantCulture, $"<path class=\"front\" d=\"{path}H{Text(Area.Right)}\"/>\n");
    }

    private void WriteErrorBars(List<PlotLine> lines)
    {
        const double cap = 3;
        foreach (PlotPoint point in _points)
        {
            if (!ReportText.IsNumber(point.Error) || point.Error <= 0) continue;
            double x = X(point.Size), top = Y(point.Loss + point.Error!.Value), bottom = Y(point.Loss - point.Error.Value);
            if (bottom - top < 0.5) continue;
            lines.Add(new PlotLine(x, top, x, bottom));
            _page.Append(CultureInfo.InvariantCulture, $"<path class=\"bar {point.Family.Style}\" d=\"{Line(x, top, x, bottom)}{Line(x - cap, top, x + cap, top)}{Line(x - cap, bottom, x + cap, bottom)}\"/>\n");
        }
    }

    private void WritePoints()
    {
        for (int i = 0; i < _points.Length; i++)
        {
            PlotPoint point = _points[i];
            double radius = Radius(i);
            string style = $"pt {point.Family.Style}{(_isOnFront[i] ? " best" : "")}{(point.Counts ? "" : " out")}";
            string description = ReportText.Escape(_isOnFront[i] ? point.Description + "; on the front" : point.Description);
            string cross = point.Counts ? "" : $"<path class=\"cross\" d=\"{Line(-radius, -radius, radius, radius)}{Line(-radius, radius, radius, -radius)}\"/>";
            _page.Append(CultureInfo.InvariantCulture, $"<g class=\"{style}\" transform=\"translate({Text(X(point.Size))} {Text(Y(point.Loss))})\" data-row=\"{point.Row}\" role=\"img\" tabindex=\"{(i == 0 ? 0 : -1)}\" aria-label=\"{description}\"><title>{description}</title><path d=\"{point.Family.Marker(radius)}\"/>{cross}</g>\n");
        }
    }

    private int WriteLabels(List<PlotBox> obstacles, List<PlotLine> lines)
    {
        string[] texts = [.. _points.Select(point => point.Label.Length <= LongestLabel ? point.Label : point.Label[..(LongestLabel - 1)] + "…")];
        LabelAnchor[] anchors = [.. _points.Select((point, i) => new LabelAnchor(X(point.Size), Y(point.Loss), Radius(i), LabelPlacement.WidthOf(texts[i], FontSize) * (_isOnFront[i] ? BoldFactor : 1), _isOnFront[i]))];
        PlacedLabel?[] labels = LabelPlacement.Place(Area.Grow(-1), anchors, obstacles, lines);
        _page.Append("<g class=\"labels\" aria-hidden=\"true\">\n");
        for (int i = 0; i < labels.Length; i++)
        {
            if (labels[i] is not { } label) continue;
            if (label.Leader is { } leader) _page.Append(CultureInfo.InvariantCulture, $"<path class=\"leader\" d=\"{Line(leader.X1, leader.Y1, leader.X2, leader.Y2)}\"/>");
            (double x, string anchor) = label.Box.X >= anchors[i].X ? (label.Box.X, "start") : label.Box.Right <= anchors[i].X ? (label.Box.Right, "end") : (label.Box.X + label.Box.Width / 2, "middle");
            _page.Append(CultureInfo.InvariantCulture, $"<text class=\"label{(_isOnFront[i] ? " best" : "")}\" x=\"{Text(x)}\" y=\"{Text(label.Box.Y + 10)}\" text-anchor=\"{anchor}\">{ReportText.Escape(texts[i])}</text>\n");
        }

        _page.Append("</g>\n");
        return labels.Count(label => label is null);
    }
}
