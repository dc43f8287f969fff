using System.Text;

namespace Qwen2Quant.Pipeline.Batch;

/// <summary>A point that wants a label.</summary>
/// <param name="Radius">Of its marker.</param>
/// <param name="Width">Of the label.</param>
/// <param name="IsImportant">Placed first, and not given up where it hides something.</param>
internal readonly record struct LabelAnchor(double X, double Y, double Radius, double Width, bool IsImportant);

/// <summary>Where a label lies, and the line that leads to it from its point where it is far.</summary>
internal sealed record PlacedLabel(PlotBox Box, PlotLine? Leader);

/// <summary>
/// Places labels beside their points so that they hide neither each other nor the points: each takes the cheapest of
/// some places around its point, one after the other and then again, given all others, until none moves. Of several
/// orders the one with the least cost is kept. Of very many points only some important ones get a label.
/// </summary>
internal sealed class LabelPlacement
{
    public const double Height = 13;

    private const int MostLabels = 100, FewLabels = 50, Rounds = 6, Directions = 24;
    private const double LeaderFrom = 8;
    private const double OverlapCost = 400, AreaCost = 6, MarkerCost = 500, LeaderCost = 120, PassCost = 110, UnplacedCost = 2000, LineCost = 14, DistanceCost = 0.9;

    private static readonly double[] Distances = [2.5, 7, 13, 20, 28, 37, 47, 58, 70, 84, 100, 120];

    private readonly PlotBox _area;
    private readonly IReadOnlyList<LabelAnchor> _anchors;
    private readonly IReadOnlyList<PlotBox> _obstacles;
    private readonly IReadOnlyList<PlotLine> _lines;
    private readonly PlacedLabel?[] _labels;

    private LabelPlacement(PlotBox area, IReadOnlyList<LabelAnchor> anchors, IReadOnlyList<PlotBox> obstacles, IReadOnlyList<PlotLine> lines)
    {
        (_area, _anchors, _obstacles, _lines) = (area, anchors, obstacles, lines);
        _labels = new PlacedLabel?[anchors.Count];
    }

    /// <summary>The label of each anchor, or null for an unimportant one that found no room.</summary>
    /// <param name="area">Labels stay in it.</param>
    /// <param name="obstacles">What no label may hide.</param>
    /// <param name="lines">What labels had better not cross.</param>
    public static PlacedLabel?[] Place(PlotBox area, IReadOnlyList<LabelAnchor> anchors, IReadOnlyList<PlotBox> obstacles, IReadOnlyList<PlotLine> lines)
    {
        LabelPlacement placement = new(area, anchors, obstacles, lines);
        placement.Run();
        return placement._labels;
    }

    /// <summary>About how wide a text of this size is; rather too wide, as fonts differ.</summary>
    public static double WidthOf(string text, double fontSize)
    {
        double width = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            width += rune.Value switch
            {
                'i' or 'j' or 'l' or 't' or 'f' or 'r' or '.' or ',' or ':' or '-' or '\'' or '|' or ' ' or '(' or ')' => 0.4,
                'm' or 'w' or 'M' or 'W' or '@' or '%' => 0.95,
                >= 'A' and <= 'Z' => 0.71,
                < 0x250 => 0.62,
                _ => 1.05,
            };
        }

        return width * fontSize;
    }

    private void Run()
    {
        int[] wanted = [.. Enumerable.Range(0, _anchors.Count)];
        if (wanted.Length > MostLabels) wanted = [.. wanted.Where(i => _anchors[i].IsImportant)];
        int every = (wanted.Length + MostLabels - 1) / MostLabels;
        if (every > 1) wanted = [.. wanted.Where((_, at) => at % every == 0)];
        IOrderedEnumerable<int>[] orders = [ImportantFirst().ThenByDescending(Neighbours), ImportantFirst().ThenBy(i => _anchors[i].X), ImportantFirst().ThenBy(i => _anchors[i].Y), wanted.OrderByDescending(i => _anchors[i].X), wanted.OrderByDescending(i => _anchors[i].Y)];
        PlacedLabel?[] best = [];
        double least = double.PositiveInfinity;
        foreach (int[] order in orders.Take(wanted.Length <= FewLabels ? orders.Length : 1).Select(order => order.ThenBy(i => i).ToArray()))
        {
            double cost = Settle(order);
            if (cost < least) (best, least) = ([.. _labels], cost);
        }

        best.CopyTo(_labels, 0);
        foreach (int i in wanted)
        {
            if (!_anchors[i].IsImportant && _labels[i] is { } label && HidesOthers(i, label)) _labels[i] = null;
        }

        IOrderedEnumerable<int> ImportantFirst() => wanted.OrderByDescending(i => _anchors[i].IsImportant);
    }

    /// <summary>Places all labels in that order until none moves; what the places cost together.</summary>
    private double Settle(int[] order)
    {
        Array.Clear(_labels);
        double[] costs = new double[_labels.Length];
        for (int round = 0; round < Rounds; round++)
        {
            bool moved = false;
            foreach (int i in order)
            {
                (PlacedLabel? best, costs[i]) = Cheapest(i);
                moved |= best != _labels[i];
                _labels[i] = best;
            }

            if (!moved) break;
        }

        return costs.Sum();
    }

    private int Neighbours(int i) => _anchors.Count(other => Math.Abs(other.X - _anchors[i].X) < 60 && Math.Abs(other.Y - _anchors[i].Y) < 30);

    private (PlacedLabel? Label, double Cost) Cheapest(int i)
    {
        PlacedLabel? best = null;
        double least = double.PositiveInfinity;
        foreach (double distance in Distances)
        {
            if (distance * DistanceCost >= least) break;
            for (int direction = 0; direction < Directions; direction++)
            {
                double angle = 2 * Math.PI * direction / Directions, cos = Math.Cos(angle), sin = Math.Sin(angle);
                PlacedLabel place = PlaceAt(_anchors[i], distance, cos, sin);
                if (!_area.Holds(place.Box)) continue;
                double preference = 1 - cos + 0.8 * Math.Abs(sin) + (sin > 0 ? 0.3 : 0);
                double cost = distance * DistanceCost + preference;
                if (cost < least) cost += Cost(i, place, least - cost);
                if (cost < least) (best, least) = (place, cost);
            }
        }

        return (best, best is null ? UnplacedCost : least);
    }

    private static PlacedLabel PlaceAt(LabelAnchor anchor, double distance, double cos, double sin)
    {
        const double middle = 0.3;
        double x = anchor.X + (anchor.Radius + distance) * cos, y = anchor.Y + (anchor.Radius + distance) * sin;
        double left = cos > middle ? x : cos < -middle ? x - anchor.Width : x - anchor.Width / 2;
        double top = sin > middle ? y : sin < -middle ? y - Height : y - Height / 2;
        PlotBox box = new(left, top, anchor.Width, Height);
        if (distance < LeaderFrom) return new PlacedLabel(box, null);
        (double endX, double endY) = box.Nearest(anchor.X, anchor.Y);
        return new PlacedLabel(box, new PlotLine(anchor.X + anchor.Radius * cos, anchor.Y + anchor.Radius * sin, endX, endY));
    }

    private double Cost(int i, PlacedLabel place, double limit)
    {
        double cost = 0;
        foreach (PlotBox obstacle in _obstacles)
        {
            cost += Hiding(place.Box, obstacle);
            if (place.Leader?.Crosses(obstacle) == true) cost += LeaderCost;
        }

        for (int j = 0; j < _anchors.Count && cost < limit; j++)
        {
            LabelAnchor anchor = _anchors[j];
            if (place.Box.Grow(0.85 * anchor.Radius).Holds(anchor.X, anchor.Y)) cost += MarkerCost;
            if (j == i) continue;
            if (place.Leader is { } leader && leader.DistanceTo(anchor.X, anchor.Y) < anchor.Radius) cost += PassCost;
            if (_labels[j] is not { } other) continue;
            cost += Hiding(place.Box, other.Box);
            if (other.Leader?.Crosses(place.Box) == true) cost += LeaderCost;
            if (place.Leader is not { } mine) continue;
            if (mine.Crosses(other.Box)) cost += LeaderCost;
            if (other.Leader is { } theirs && mine.Crosses(theirs)) cost += PassCost;
        }

        if (cost >= limit) return cost;
        foreach (PlotLine line in _lines)
        {
            if (line.Crosses(place.Box)) cost += LineCost;
        }

        return cost;
    }

    private static double Hiding(PlotBox box, PlotBox other)
    {
        double area = box.Overlap(other);
        return area == 0 ? 0 : OverlapCost + AreaCost * area;
    }

    private bool HidesOthers(int i, PlacedLabel label)
    {
        double tolerance = 0.1 * label.Box.Width * label.Box.Height;
        if (_obstacles.Any(obstacle => obstacle.Overlap(label.Box) > tolerance)) return true;
        for (int j = 0; j < _labels.Length; j++)
        {
            if (j != i && _labels[j] is { } other && other.Box.Overlap(label.Box) > tolerance) return true;
        }

        return false;
    }
}
