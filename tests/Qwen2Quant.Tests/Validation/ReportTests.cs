using System.Text.Json;
using Qwen2Quant.Core.Errors;
using Qwen2Quant.Validation;

namespace Qwen2Quant.Tests.Validation;

public class ReportTests
{
    private static readonly ComparisonResult Sample = new(
        new PerplexityFigure(1.5, 0.25),
        new PerplexityFigure(2.5, 0.125),
        1.6875,
        0.75,
        0.03125,
        0.0625,
        0.001,
        new KldPercentiles(0.01, 0.02, 0.03, 0.04, 0.05, 0.06),
        0.875,
        0.007,
        2040,
        256,
        8,
        ScoringProtocol.Llama,
        WindowSampling.Spread,
        3.5,
        [new WorstPosition(3, 17, 0.06, "before", new ExpectedToken(5, "e", 0.5, 0.25), "after", [new TokenProbability(5, "e", 0.5)], [new TokenProbability(6, "f", 0.75)])],
        Generation: new GenerationComparison(64, 12.5, 9, 0.125, 0.5, [new PromptComparison("p", 1, false, 64, 3, "ab", "ac")]));

    [Fact]
    public void PerplexityDocumentHasTheContractsKeys()
    {
        PerplexityResult result = new(12.5, 0.5, 4080, 512, 16, ScoringProtocol.Full, WindowSampling.First, 1.25);
        using JsonDocument document = JsonDocument.Parse(JsonSerializer.Serialize(result, ValidationJson.Default.PerplexityResult));
        Assert.Equal(
            ["perplexity", "standard_error", "tokens", "context", "chunks", "protocol", "sampling", "seconds"],
            document.RootElement.EnumerateObject().Select(property => property.Name));
        Assert.Equal(12.5, document.RootElement.GetProperty("perplexity").GetDouble());
        Assert.Equal("full", document.RootElement.GetProperty("protocol").GetString());
        Assert.Equal("first", document.RootElement.GetProperty("sampling").GetString());
    }

    [Fact]
    public void ComparisonDocumentHasTheContractsKeys()
    {
        Dictionary<string, double> figures = Figures(Sample);
        string[] contract =
        [
            "base.perplexity", "candidate.perplexity", "mean_kld", "mean_kld_standard_error", "kld.p50", "kld.p90", "kld.p95", "kld.p99",
            "kld.p999", "kld.max", "perplexity_ratio", "top_token_agreement", "tokens",
        ];
        Assert.All(contract, key => Assert.Contains(key, figures.Keys));
        using JsonDocument document = JsonDocument.Parse(JsonSerializer.Serialize(Sample, ValidationJson.Default.ComparisonResult));
        JsonElement worst = document.RootElement.GetProperty("worst_positions")[0];
        Assert.Equal(
            ["window", "position", "kld", "text_before", "expected", "text_after", "base_top", "candidate_top"],
            worst.EnumerateObject().Select(property => property.Name));
        Assert.Equal(0.25, worst.GetProperty("expected").GetProperty("candidate_probability").GetDouble());
        Assert.Equal("f", worst.GetProperty("candidate_top")[0].GetProperty("text").GetString());
    }

    [Fact]
    public void CatalogueOfKeysIsThatOfTheDocument()
    {
        Dictionary<string, double> figures = Figures(Sample);
        Assert.Equal(figures.Keys, ComparisonKeys.All.Select(key => key.Name));
        Assert.All(ComparisonKeys.All, key => Assert.Equal(figures[key.Name], key.Read(Sample, Sample.Generation)));
    }

    [Fact]
    public void GeneratedTextHasTheSameKeysAlone()
    {
        using JsonDocument whole = JsonDocument.Parse(JsonSerializer.Serialize(Sample, ValidationJson.Default.ComparisonResult));
        using JsonDocument alone = JsonDocument.Parse(JsonSerializer.Serialize(new GenerationDocument(Sample.Generation!), ValidationJson.Default.GenerationDocument));
        Assert.Equal(whole.RootElement.GetProperty("generation").GetRawText().Replace(" ", "", StringComparison.Ordinal), alone.RootElement.GetProperty("generation").GetRawText().Replace(" ", "", StringComparison.Ordinal));
        Assert.Equal(
            ["prompt", "agreed_tokens", "identical", "base_tokens", "candidate_tokens", "base_text", "candidate_text"],
            alone.RootElement.GetProperty("generation").GetProperty("prompts")[0].EnumerateObject().Select(property => property.Name));
        using JsonDocument without = JsonDocument.Parse(JsonSerializer.Serialize(Sample with { Generation = null }, ValidationJson.Default.ComparisonResult));
        Assert.False(without.RootElement.TryGetProperty("generation", out _));
    }

    [Fact]
    public void GatesKnowWhatTheyNeed()
    {
        QualityGate text = QualityGate.Parse(["mean_kld=1"], []), generation = QualityGate.Parse([], ["generation.identical_share=0.5"]);
        Assert.Equal((true, false, false, true), (text.NeedsText, text.NeedsGeneration, generation.NeedsText, generation.NeedsGeneration));
        Assert.Equal([new GateViolation("generation.identical_share", 0.125, 0.5, false)], generation.Evaluate(null, Sample.Generation));
        Assert.Empty(text.Evaluate(null, Sample.Generation));
    }

    [Fact]
    public void DocumentsRoundTrip()
    {
        string text = JsonSerializer.Serialize(Sample, ValidationJson.Default.ComparisonResult);
        ComparisonResult? read = JsonSerializer.Deserialize(text, ValidationJson.Default.ComparisonResult);
        Assert.Equal(text, JsonSerializer.Serialize(read, ValidationJson.Default.ComparisonResult));
    }

    [Fact]
    public void GateReportsWhatBreaksItsLimits()
    {
        QualityGate gate = QualityGate.Parse(
            ["mean_kld=0.1", "kld.p99=0.039", "candidate.perplexity=2.5", "perplexity_ratio=1.05", "kld.p99=1e-2"],
            ["top_token_agreement=0.9", "top_token_agreement=0.875", "tokens=2000"]);
        IReadOnlyList<GateViolation> violations = gate.Evaluate(Sample);
        Assert.Equal(
            [
                new GateViolation("kld.p99", 0.04, 0.039, true),
                new GateViolation("perplexity_ratio", 1.6875, 1.05, true),
                new GateViolation("kld.p99", 0.04, 0.01, true),
                new GateViolation("top_token_agreement", 0.875, 0.9, false),
            ],
            violations);
        Assert.Equal("kld.p99 = 0.04 is above 0.039", violations[0].ToString());
        Assert.Equal("top_token_agreement = 0.875 is below 0.9", violations[3].ToString());
        Assert.Empty(QualityGate.Parse([], []).Evaluate(Sample));
    }

    [Theory]
    [InlineData("mean_kld")]
    [InlineData("mean_kld=")]
    [InlineData("mean_kld=nan")]
    [InlineData("mean_kld=Infinity")]
    [InlineData("mean_kld=0,1")]
    [InlineData("mean_kld=1=2")]
    [InlineData("Mean_Kld=1")]
    [InlineData("kld=1")]
    [InlineData("worst_positions=1")]
    [InlineData("=1")]
    [InlineData("")]
    public void GateRefusesWhatItCannotCheck(string limit)
    {
        Assert.Equal(ErrorKind.Usage, Assert.Throws<QuantException>(() => QualityGate.Parse([limit], [])).Kind);
        QuantException error = Assert.Throws<QuantException>(() => QualityGate.Parse([], [limit]));
        Assert.Contains("--fail-below", error.Message);
    }

    [Fact]
    public void UnknownKeyIsAnsweredWithTheKnownOnes()
    {
        QuantException error = Assert.Throws<QuantException>(() => QualityGate.Parse(["kld.p98=1"], []));
        Assert.All(ComparisonKeys.All, key => Assert.Contains(key.Name, error.Message));
    }

    [Theory]
    [InlineData(0.5, 2.5)]
    [InlineData(0.0, 1)]
    [InlineData(1.0, 4)]
    [InlineData(0.9, 3.7)]
    [InlineData(0.999, 3.997)]
    public void PercentilesInterpolateLinearly(double fraction, double expected) =>
        Assert.Equal(expected, Percentiles.Of([1, 2, 3, 4], fraction), 1e-12);

    [Fact]
    public void PercentilesOfOneAndTwoValues()
    {
        Assert.Equal(7, Percentiles.Of([7], 0.5));
        Assert.Equal(7, Percentiles.Of([7], 0.999));
        Assert.Equal(2, Percentiles.Of([1, 3], 0.5));
        Assert.Equal(3, Percentiles.Of([1, 3], 1));
        Assert.Equal(new KldPercentiles(2, 3, 3, 3, 3, 3) with { P90 = 2.8, P95 = 2.9, P99 = 2.98, P999 = 2.998 }, Rounded(KldPercentiles.From([3, 1, 2])));
    }

    private static KldPercentiles Rounded(KldPercentiles value) => new(
        Math.Round(value.P50, 9), Math.Round(value.P90, 9), Math.Round(value.P95, 9), Math.Round(value.P99, 9), Math.Round(value.P999, 9), value.Max);

    /// <summary>All numbers outside arrays, by their path, in the document's order.</summary>
    private static Dictionary<string, double> Figures(ComparisonResult result)
    {
        using JsonDocument document = JsonDocument.Parse(JsonSerializer.Serialize(result, ValidationJson.Default.ComparisonResult));
        Dictionary<string, double> figures = [];
        Walk(document.RootElement, "");
        return figures;

        void Walk(JsonElement element, string prefix)
        {
            foreach (JsonProperty property in element.EnumerateObject())
            {
                if (property.Value.ValueKind == JsonValueKind.Object) Walk(property.Value, prefix + property.Name + ".");
                else if (property.Value.ValueKind == JsonValueKind.Number) figures.Add(prefix + property.Name, property.Value.GetDouble());
            }
        }
    }
}
