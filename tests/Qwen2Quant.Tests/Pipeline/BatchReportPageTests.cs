using System.Globalization;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using Qwen2Quant.Pipeline.Batch;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>The page of a batch: well-formed, self-contained, complete, whatever the rows hold.</summary>
public sealed partial class BatchReportPageTests
{
    private static readonly XNamespace Html = "http://www.w3.org/1999/xhtml", Svg = "http://www.w3.org/2000/svg";

    [Fact]
    public void APlausibleBatchIsShownWhole()
    {
        XDocument page = Page([.. BatchRows.Plausible]);
        Assert.Equal("batch", page.Descendants(Html + "title").Single().Value);
        Assert.Equal(["Qwen/Qwen2-0.5B-Instruct", "Qwen/Qwen2.5-7B-Instruct"], page.Descendants(Html + "section").Select(section => section.Element(Html + "h2")!.Value));
        foreach ((XElement section, IGrouping<string, BatchRow> model) in page.Descendants(Html + "section").Zip(BatchRows.Plausible.GroupBy(row => row.Model)))
        {
            XElement[] rows = [.. section.Descendants(Html + "tbody").Single().Elements()];
            Assert.Equal(model.OrderBy(row => row.Bytes).Select(row => row.Scheme), rows.Select(row => (string)row.Element(Html + "th")!.Attribute("data-v")!));
            Assert.All(rows, row => Assert.Equal(11, row.Elements().Count()));
            Assert.Equal(2, Plots(section).Length);
            int measured = model.Count(row => row.MeanKld is not null);
            Assert.All(Plots(section), plot => Assert.Equal(measured, Points(plot).Length));
            Assert.All(Plots(section), plot => Assert.Equal(measured, Labels(plot).Length));
        }

        string[] words = ["13.412", "On the front", "no space left on the device", "Dashed: the source.", "smoothquant+gptq"];
        Assert.All(words, word => Assert.Contains(word, page.ToString(), StringComparison.Ordinal));
    }

    [Fact]
    public void PlotsHaveTitlesDescriptionsAndHeadersAScope()
    {
        XDocument page = Page([.. BatchRows.Plausible]);
        string[] ids = [.. page.Descendants().Attributes("id").Select(id => id.Value)];
        Assert.Equal(ids.Length, ids.Distinct().Count());
        foreach (XElement plot in Plots(page.Root!))
        {
            Assert.NotEmpty(plot.Element(Svg + "title")!.Value);
            Assert.NotEmpty(plot.Element(Svg + "desc")!.Value);
            Assert.All(((string)plot.Attribute("aria-labelledby")!).Split(' '), id => Assert.Contains(id, ids));
            Assert.All(Points(plot), point => Assert.Contains((string)point.Attribute("data-row")!, ids));
        }

        Assert.All(page.Descendants(Html + "th"), header => Assert.True((string?)header.Attribute("scope") is "col" or "row"));
    }

    [Fact]
    public void NothingIsLoadedFromElsewhere()
    {
        string page = BatchReportPage.Write("batch", "1.0", BatchRows.Plausible);
        string without = Namespaces().Replace(page, "");
        string[] resources = ["http:", "https:", "src=", "url(", "@import", "<link", "<img", "<iframe", "fetch(", "XMLHttpRequest"];
        Assert.All(resources, resource => Assert.DoesNotContain(resource, without, StringComparison.OrdinalIgnoreCase));
        Assert.Contains("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'", page, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("<script>alert(1)</script>")]
    [InlineData("\" onmouseover=\"alert(1)")]
    [InlineData("' onfocus='alert(1)")]
    [InlineData("]]></script><!-- &amp; -->")]
    [InlineData("a\0b\u001b[31mc\u202ed\ud800e\uffff")]
    public void TextFromOutsideIsOnlyText(string hostile)
    {
        BatchRow row = BatchRows.Done with { Model = hostile, Name = hostile, Scheme = hostile, State = hostile, Method = hostile, Message = hostile };
        string text = BatchReportPage.Write(hostile, hostile, [row, row with { Bytes = 1, State = "failed" }, row with { State = "done", MeanKld = 0.01 }]);
        XDocument page = XDocument.Parse(text);
        string[] plain = [.. Page(BatchRows.Done).Descendants().Select(element => element.Name.LocalName).Distinct()];
        Assert.All(page.Descendants(), element => Assert.True(plain.Contains(element.Name.LocalName) || element.Name == Html + "h3", element.Name.LocalName));
        Assert.Single(page.Descendants(Html + "script"));
        Assert.DoesNotContain(page.Descendants().Attributes(), attribute => attribute.Name.LocalName.StartsWith("on", StringComparison.Ordinal));
        Assert.DoesNotContain(text, character => character is '\0' or '\u001b' or '\u202e');
        if (!hostile.Any(char.IsControl)) Assert.Equal(hostile, page.Descendants(Html + "h1").Single().Value);
    }

    [Fact]
    public void TheSameRowsGiveTheSameBytesInEveryCulture()
    {
        string expected = BatchReportPage.Write("batch", "1.0", BatchRows.Plausible);
        CultureInfo before = CultureInfo.CurrentCulture;
        try
        {
            CultureInfo.CurrentCulture = new CultureInfo("") { NumberFormat = { NumberDecimalSeparator = ",", NumberGroupSeparator = ".", NegativeSign = "~" } };
            Assert.Equal(expected, BatchReportPage.Write("batch", "1.0", [.. BatchRows.Plausible]));
        }
        finally
        {
            CultureInfo.CurrentCulture = before;
        }
    }

    [Fact]
    public void WithoutItemsThereIsASentence() => Assert.Contains("The batch has no items.", Page().Root!.Value, StringComparison.Ordinal);

    [Fact]
    public void WithoutMeasurementsASentenceTakesThePlotsPlace()
    {
        XDocument page = Page(BatchRows.Waiting, BatchRows.Waiting with { Name = "second", State = "failed", Message = "disk full" });
        Assert.Empty(Plots(page.Root!));
        Assert.Contains("Nothing was measured", page.Root!.Value, StringComparison.Ordinal);
        Assert.Contains("second", page.Root.Value, StringComparison.Ordinal);
        Assert.Equal(2, page.Descendants(Html + "tbody").Elements().Count());
    }

    [Fact]
    public void OneMeasureMakesOnePlot()
    {
        XDocument perplexity = Page(BatchRows.Done with { MeanKld = null }), divergence = Page(BatchRows.Done with { Perplexity = null });
        Assert.Single(Plots(perplexity.Root!));
        Assert.Contains("No KL divergence was measured", perplexity.Root!.Value, StringComparison.Ordinal);
        Assert.Single(Plots(divergence.Root!));
        Assert.Contains("No perplexity was measured", divergence.Root!.Value, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0.0)]
    [InlineData(-1e-9)]
    [InlineData(1e-300)]
    [InlineData(0.02)]
    [InlineData(1e20)]
    [InlineData(double.NaN)]
    [InlineData(double.PositiveInfinity)]
    [InlineData(double.MaxValue)]
    public void AnyValueIsDrawnInsideThePlotOrNotAtAll(double value)
    {
        BatchRow odd = BatchRows.Done with { MeanKld = value, Perplexity = value, BasePerplexity = value, MeanKldStandardError = value, PerplexityStandardError = value, PerplexityRatio = value, KldP99 = value, TopTokenAgreement = value, Seconds = value, BitsPerWeight = value };
        BatchRow[][] batches = [[odd], [odd, odd], [odd, BatchRows.Done], [odd, BatchRows.Done with { Bytes = 0 }], [odd with { Bytes = 0 }], [odd with { Bytes = long.MaxValue }, odd with { Bytes = -5 }]];
        foreach (BatchRow[] batch in batches)
        {
            XDocument page = Page(batch);
            Assert.Equal(batch.Length, page.Descendants(Html + "tbody").Elements().Count());
            foreach (XElement plot in Plots(page.Root!))
            {
                string text = plot.ToString();
                Assert.DoesNotContain("NaN", text, StringComparison.Ordinal);
                Assert.DoesNotContain("Infinity", text, StringComparison.Ordinal);
                Assert.DoesNotContain("∞", text, StringComparison.Ordinal);
                Assert.InRange(plot.Descendants().Count(element => (string?)element.Attribute("text-anchor") is not null), 3, 60);
                foreach (XElement point in Points(plot))
                {
                    double[] at = [.. Numbers().Matches((string)point.Attribute("transform")!).Select(match => double.Parse(match.Value, CultureInfo.InvariantCulture))];
                    Assert.InRange(at[0], 0, 920);
                    Assert.InRange(at[1], 0, 450);
                }
            }
        }
    }

    [Fact]
    public void RejectedItemsAreHollowAndNeverOnTheFront()
    {
        XDocument page = Page(BatchRows.Done, BatchRows.Done with { Scheme = "gguf:Q2_K", Bytes = 1_000_000, MeanKld = 0.001, State = "rejected", Message = "mean_kld is too large" });
        foreach (XElement plot in Plots(page.Root!))
        {
            Assert.Equal(["pt f-gguf out", "pt f-gguf best"], Points(plot).Select(point => (string)point.Attribute("class")!));
            Assert.Contains(", rejected: 1.0 MB", (string)Points(plot)[0].Attribute("aria-label")!, StringComparison.Ordinal);
        }

        Assert.Contains("mean_kld is too large", page.Root!.Value, StringComparison.Ordinal);
    }

    [Fact]
    public void LabelsNeitherOverlapNorLeaveThePlot()
    {
        BatchRow[] crowd = [.. Enumerable.Range(0, 60).Select(i => BatchRows.Done with { Scheme = $"gguf:TYPE_{i}", Bytes = 1_000_000 + 1_000 * (i * 37 % 60), MeanKld = 0.02 + 0.001 * (i * 23 % 60) })];
        foreach (BatchRow[] rows in new[] { [.. BatchRows.Plausible.Where(row => row.Model == BatchRows.Plausible[0].Model)], crowd })
        {
            foreach (XElement plot in Plots(Page(rows).Root!))
            {
                PlotBox[] boxes = [.. Labels(plot).Select(Box)];
                Assert.True(boxes.Length > 15);
                for (int i = 0; i < boxes.Length; i++)
                {
                    Assert.InRange(boxes[i].X, 55, 920 - boxes[i].Width);
                    for (int j = 0; j < i; j++) Assert.True(boxes[i].Overlap(boxes[j]) <= 0.15 * boxes[i].Width * boxes[i].Height, $"{Labels(plot)[i].Value} and {Labels(plot)[j].Value}");
                }
            }
        }
    }

    [Fact]
    public void ManyItemsAreDrawnInReasonableTime()
    {
        BatchRow[] rows = [.. Enumerable.Range(0, 1000).Select(i => BatchRows.Done with { Scheme = $"gguf:TYPE_{i}", Name = $"item {i}", Bytes = 1_000_000 + i, MeanKld = 0.5 / (i + 1) + 0.001 * (i % 7) })];
        XDocument page = Page(rows);
        Assert.Equal(1000, Points(Plots(page.Root!)[0]).Length);
        Assert.Contains("no room for a name", page.Root!.Value, StringComparison.Ordinal);
    }

    [Fact]
    public void EqualSchemesAreToldApartByTheirMethods()
    {
        XDocument page = Page(BatchRows.Done, BatchRows.Done with { Method = "gptq", MeanKld = 0.01 }, BatchRows.Done with { Scheme = "mlx:w4g64" }, BatchRows.Done with { Scheme = "awq:w4g64" });
        Assert.Equal(["Q4_0 (gptq)", "Q4_0 (rtn)", "awq:w4g64", "mlx:w4g64"], Labels(Plots(page.Root!)[0]).Select(label => label.Value).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void DifferentSourcesAreSaid()
    {
        XDocument page = Page(BatchRows.Done, BatchRows.Done with { BasePerplexity = 13 });
        Assert.Contains("compare ratios, not perplexities", page.Root!.Value, StringComparison.Ordinal);
        Assert.Equal(2, page.Descendants(Svg + "path").Count(path => (string?)path.Attribute("class") == "base"));
    }

    [Fact]
    public void TheBestOfAColumnIsBold()
    {
        XDocument page = Page(BatchRows.Done, BatchRows.Done with { Scheme = "gguf:Q8_0", Bytes = 2_000_000, MeanKld = 0.001, TopTokenAgreement = 0.99 }, BatchRows.Done with { Scheme = "gguf:Q2_K", State = "rejected", MeanKld = 0.0001 });
        Assert.Equal(["1.5", "0.00100", "99.00\u00a0%"], page.Descendants(Html + "tbody").Descendants(Html + "strong").Select(best => best.Value));
        Assert.Empty(Page(BatchRows.Done).Descendants(Html + "tbody").Descendants(Html + "strong"));
    }

    private static XDocument Page(params BatchRow[] rows) => XDocument.Parse(BatchReportPage.Write("batch", "1.0", rows));

    private static XElement[] Plots(XElement root) => [.. root.Descendants(Svg + "svg").Where(svg => (string?)svg.Attribute("class") == "plot")];

    private static XElement[] Points(XElement plot) => [.. plot.Elements(Svg + "g").Where(group => ((string?)group.Attribute("class"))?.StartsWith("pt ", StringComparison.Ordinal) == true)];

    private static XElement[] Labels(XElement plot) => [.. plot.Descendants(Svg + "text").Where(text => ((string?)text.Attribute("class"))?.StartsWith("label", StringComparison.Ordinal) == true)];

    private static PlotBox Box(XElement label)
    {
        double width = LabelPlacement.WidthOf(label.Value, 11.5), x = (double)label.Attribute("x")!;
        return new PlotBox((string)label.Attribute("text-anchor")! switch { "start" => x, "end" => x - width, _ => x - width / 2 }, (double)label.Attribute("y")! - 10, width, LabelPlacement.Height);
    }

    [GeneratedRegex(" xmlns=\"http://www\\.w3\\.org/[^\"]*\"")]
    private static partial Regex Namespaces();

    [GeneratedRegex("-?[0-9.]+")]
    private static partial Regex Numbers();
}
