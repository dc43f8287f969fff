namespace Qwen2Quant.Pipeline.Batch;

/// <summary>A rectangle in a plot; y grows downwards.</summary>
internal readonly record struct PlotBox(double X, double Y, double Width, double Height)
{
    public double Right => X + Width;

    public double Bottom => Y + Height;

    public double Overlap(PlotBox other)
    {
        double width = Math.Min(Right, other.Right) - Math.Max(X, other.X), height = Math.Min(Bottom, other.Bottom) - Math.Max(Y, other.Y);
        return width <= 0 || height <= 0 ? 0 : width * height;
    }

    public bool Holds(PlotBox other) => other.X >= X && other.Y >= Y && other.Right <= Right && other.Bottom <= Bottom;

    public PlotBox Grow(double by) => new(X - by, Y - by, Width + 2 * by, Height + 2 * by);

    public bool Holds(double x, double y) => x > X && x < Right && y > Y && y < Bottom;

    /// <summary>The point of the box that is nearest to another point.</summary>
    public (double X, double Y) Nearest(double x, double y) => (Math.Clamp(x, X, Right), Math.Clamp(y, Y, Bottom));
}

/// <summary>A straight line in a plot.</summary>
internal readonly record struct PlotLine(double X1, double Y1, double X2, double Y2)
{
    /// <summary>Whether some of the line lies in the box (Liang and Barsky).</summary>
    public bool Crosses(PlotBox box)
    {
        double dx = X2 - X1, dy = Y2 - Y1, from = 0, to = 1;
        return Clip(-dx, X1 - box.X, ref from, ref to) && Clip(dx, box.Right - X1, ref from, ref to)
            && Clip(-dy, Y1 - box.Y, ref from, ref to) && Clip(dy, box.Bottom - Y1, ref from, ref to);
    }

    public bool Crosses(PlotLine other)
    {
        double a = Side(other.X1, other.Y1), b = Side(other.X2, other.Y2), c = other.Side(X1, Y1), d = other.Side(X2, Y2);
        return a * b < 0 && c * d < 0;
    }

    public double DistanceTo(double x, double y)
    {
        double dx = X2 - X1, dy = Y2 - Y1, length = dx * dx + dy * dy;
        double t = length == 0 ? 0 : Math.Clamp(((x - X1) * dx + (y - Y1) * dy) / length, 0, 1);
        return Math.Sqrt(Math.Pow(x - X1 - t * dx, 2) + Math.Pow(y - Y1 - t * dy, 2));
    }

    private double Side(double x, double y) => (X2 - X1) * (y - Y1) - (Y2 - Y1) * (x - X1);

    private static bool Clip(double direction, double distance, ref double from, ref double to)
    {
        if (direction == 0) return distance > 0;
        double at = distance / direction;
        if (direction < 0) from = Math.Max(from, at);
        else to = Math.Min(to, at);
        return from < to;
    }
}
