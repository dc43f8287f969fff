using System.Net;
using System.Text.RegularExpressions;
using Qwen2Quant.Pipeline.Batch;
using Qwen2Quant.Tests.Pipeline;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.Engines;

/// <summary>The report of a batch in a browser: no error, everything there, sorting works.</summary>
public sealed partial class BrowserReportTests
{
    private static readonly string[] Models = [.. BatchRows.Plausible.Select(row => row.Model).Distinct()];

    [ChromiumFact]
    public void ThePageLoadsWithAllRowsPointsAndLabels()
    {
        string document = Load(BatchReportPage.Write("batch", "1.0", BatchRows.Plausible), "");
        Assert.Equal(BatchRows.Plausible.GroupBy(row => row.Model).SelectMany(model => model.OrderBy(row => row.Bytes)).Select(row => row.Scheme), Schemes(document));
        int measured = BatchRows.Plausible.Count(row => row.MeanKld is not null);
        Assert.Equal(2 * Models.Length, Regex.Count(document, "<svg [^>]*class=\"plot\""));
        Assert.Equal(2 * measured, Regex.Count(document, "<g class=\"pt [^>]* transform="));
        Assert.Equal(2 * measured, Regex.Count(document, "<text class=\"label"));
        Assert.All(BatchRows.Plausible, row => Assert.Contains(row.Scheme, document, StringComparison.Ordinal));
        Assert.Contains(">Q4_K_M</text>", document, StringComparison.Ordinal);
        Assert.Contains("<button type=\"button\">mean KL</button>", document, StringComparison.Ordinal);
        Assert.Contains("id=\"tip\"", document, StringComparison.Ordinal);
    }

    [ChromiumFact]
    public void AFragmentSortsByAColumnAndMissingValuesComeLast()
    {
        foreach ((string fragment, int sign) in new[] { ("#sort=mean_kld", 1), ("#sort=-mean_kld", -1) })
        {
            string document = Load(BatchReportPage.Write("batch", "1.0", BatchRows.Plausible), fragment);
            Assert.Equal(Models.SelectMany(model => Sorted(model, sign)), Schemes(document));
            Assert.Equal(Models.Length, Regex.Count(document, $"data-key=\"mean_kld\"[^>]* aria-sort=\"{(sign > 0 ? "ascending" : "descending")}\""));
        }
    }

    [ChromiumFact]
    public void AClickSortsItsTableAndASecondOneTurnsItRound()
    {
        const string harness = "<script>var b = document.querySelector('[data-key=mean_kld] button'); b.click(); b.click(); document.querySelector('svg.plot .pt').focus();</script></body>";
        string document = Load(BatchReportPage.Write("batch", "1.0", BatchRows.Plausible).Replace("</body>", harness, StringComparison.Ordinal), "");
        Assert.Equal([.. Sorted(Models[0], -1), .. BatchRows.Plausible.Where(row => row.Model == Models[1]).OrderBy(row => row.Bytes).Select(row => row.Scheme)], Schemes(document));
        Assert.Contains("Items by mean KL, descending.", document, StringComparison.Ordinal);
        Assert.Matches("<div id=\"tip\"[^>]*>gguf:IQ2_M by gptq, rejected: 180.9 MB, mean KL divergence", document);
    }

    [ChromiumFact]
    public void HostileTextStaysText()
    {
        const string hostile = "<script>console.error('run')</script><img src=x onerror=\"console.error('run')\"/>";
        BatchRow row = BatchRows.Done with { Model = hostile, Name = hostile, Scheme = hostile, Method = hostile, Message = hostile };
        string document = Load(BatchReportPage.Write(hostile, hostile, [row, row with { Bytes = 1 }]), "#sort=method");
        Assert.Equal(1, Regex.Count(document, "<script"));
        Assert.DoesNotContain("<img", document, StringComparison.Ordinal);
    }

    private static string Load(string page, string fragment)
    {
        using TempFolder folder = new();
        (string document, string[] console) = Chromium.Load(folder, page, fragment);
        Assert.Empty(console);
        return document;
    }

    private static IEnumerable<string> Sorted(string model, int sign) =>
        BatchRows.Plausible.Where(row => row.Model == model).OrderBy(row => row.Bytes).OrderBy(row => row.MeanKld is null).ThenBy(row => sign * row.MeanKld ?? 0).Select(row => row.Scheme);

    private static string[] Schemes(string document) => [.. RowHeaders().Matches(document).Select(match => WebUtility.HtmlDecode(match.Groups[1].Value))];

    [GeneratedRegex("<th scope=\"row\" data-v=\"([^\"]*)\"")]
    private static partial Regex RowHeaders();
}
