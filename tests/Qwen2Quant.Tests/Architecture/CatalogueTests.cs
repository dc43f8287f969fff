using System.CommandLine;
using Qwen2Quant.Cli;
using Qwen2Quant.Cli.Verbs;
using Qwen2Quant.Quantization;

namespace Qwen2Quant.Tests.Architecture;

/// <summary>The static lists hold everything that there is.</summary>
public sealed class CatalogueTests
{
    [Fact]
    public void EveryVerbIsInItsCatalogue()
    {
        Type[] verbs = [.. typeof(VerbCatalog).Assembly.GetTypes().Where(type => type.GetMethod("Create", [typeof(VerbRunner)])?.ReturnType == typeof(Command))];
        Assert.NotEmpty(verbs);
        Assert.Equal(verbs.OrderBy(type => type.Name), VerbCatalog.All.Select(create => create.Method.DeclaringType!).OrderBy(type => type.Name));
    }

    [Fact]
    public void EveryVerbHasADescriptionAndExamplesThatParse()
    {
        RootCommand root = [];
        new CommonOptions().AddTo(root);
        foreach (Func<VerbRunner, Command> create in VerbCatalog.All) root.Subcommands.Add(create((_, _) => 0));
        foreach (Verb verb in root.Subcommands.Concat(root.Subcommands.SelectMany(verb => verb.Subcommands)).Cast<Verb>())
        {
            Assert.NotEmpty(verb.Description!);
            Assert.NotEmpty(verb.Examples);
            Assert.All(verb.Options.Concat<Symbol>(verb.Arguments), symbol => Assert.False(string.IsNullOrEmpty(symbol.Description), $"{verb.Name} {symbol.Name}"));
            foreach (string example in verb.Examples) Assert.Empty(root.Parse(example.Split(" >>")[0]).Errors);
        }
    }

    [Fact]
    public void EverySolverIsInItsCatalogue()
    {
        Type[] solvers = [.. typeof(SolverCatalog).Assembly.GetTypes().Where(type => type is { IsClass: true, IsAbstract: false } && type.IsAssignableTo(typeof(ISolver)))];
        Assert.Equal(solvers.OrderBy(type => type.Name), SolverCatalog.All.Select(solver => solver.GetType()).OrderBy(type => type.Name));
        Assert.All(SolverCatalog.All, solver => Assert.Same(solver, SolverCatalog.Find(solver.Name.ToUpperInvariant())));
    }
}
