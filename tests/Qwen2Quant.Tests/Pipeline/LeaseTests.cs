using System.Diagnostics;
using System.Text.Json;
using Qwen2Quant.Core.Files;
using Qwen2Quant.Pipeline.Batch;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.Tests.Pipeline;

/// <summary>Claims of tasks: one owner at a time, dead ones taken over, living ones left alone.</summary>
public sealed class LeaseTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void ATaskHasOneOwner()
    {
        using Leases one = Worker(), other = Worker();
        IDisposable claim = one.Claim("a")!;
        Assert.Null(other.Claim("a"));
        Assert.Null(one.Claim("a"));
        Assert.NotNull(other.Claim("b"));
        Assert.True(Leases.IsHeld(DiskFileLayer.Instance, _folder.Path, "a"));
        claim.Dispose();
        Assert.False(Leases.IsHeld(DiskFileLayer.Instance, _folder.Path, "a"));
        Assert.NotNull(other.Claim("a"));
        other.Dispose();
        Assert.Empty(Directory.GetFiles(_folder.Path));
    }

    [Fact]
    public void ADeadOwnerOfThisMachineIsReplacedAtOnce()
    {
        Write("a", new LeaseContent("gone", Leases.Machine, 1, 1));
        Assert.False(Leases.IsHeld(DiskFileLayer.Instance, _folder.Path, "a"));
        using Leases worker = Worker(seconds: 1000);
        Assert.NotNull(worker.Claim("a"));
        Assert.Equal(["a"], Directory.GetFiles(_folder.Path).Select(Path.GetFileName));
    }

    /// <summary>What counts is that the beat stands still for the length of a lease, by the clock of the one who looks.</summary>
    [Fact]
    public void AnOwnerOfAnotherMachineIsReplacedWhenItsBeatStandsStill()
    {
        using Leases worker = Worker(seconds: 1);
        Write("a", new LeaseContent("far", "elsewhere", 1, 1));
        File.SetLastWriteTimeUtc(_folder.File("a"), DateTime.UtcNow.AddHours(-5));
        Assert.True(Leases.IsHeld(DiskFileLayer.Instance, _folder.Path, "a"));
        Stopwatch watch = Stopwatch.StartNew();
        for (int beat = 2; watch.ElapsedMilliseconds < 1500; beat++)
        {
            Assert.Null(worker.Claim("a"));
            Write("a", new LeaseContent("far", "elsewhere", 1, beat));
            Thread.Sleep(100);
        }

        Assert.Null(worker.Claim("a"));
        Thread.Sleep(1100);
        Assert.NotNull(worker.Claim("a"));
    }

    /// <summary>A claim that was cut off before its first beat holds nobody for long.</summary>
    [Theory]
    [InlineData("")]
    [InlineData("{ \"owner\": ")]
    public void AClaimWithoutContentIsReplaced(string content)
    {
        File.WriteAllText(_folder.File("a"), content);
        using Leases worker = Worker(seconds: 1000);
        Assert.Null(worker.Claim("a"));
        Thread.Sleep(2200);
        Assert.NotNull(worker.Claim("a"));
    }

    [Fact]
    public void LivingOwnersKeepCounting()
    {
        using Leases worker = Worker(seconds: 0.4);
        using IDisposable claim = worker.Claim("a")!;
        byte[] before = Read();
        Assert.True(SpinWait.SpinUntil(() => !Read().AsSpan().SequenceEqual(before), TimeSpan.FromSeconds(10)));
        Assert.Equal(worker.Owner, JsonSerializer.Deserialize(Read(), BatchJson.Default.LeaseContent)!.Owner);

        // As workers do, without a lock that would look like an owner's.
        byte[] Read() => DiskFileLayer.Instance.ReadAllBytes(_folder.File("a"), 1000);
    }

    /// <summary>Many want the same tasks of dead owners at once; nobody gets one that another has.</summary>
    [Fact]
    public void OfManyOneSucceeds()
    {
        const int tasks = 20, workers = 4;
        for (int task = 0; task < tasks; task++) Write($"t{task}", new LeaseContent("gone", Leases.Machine, 1, 1));
        int[] owners = new int[tasks];
        Leases[] all = [.. Enumerable.Range(0, workers).Select(_ => Worker())];
        Parallel.For(0, workers, new ParallelOptions { MaxDegreeOfParallelism = workers }, worker =>
        {
            for (int round = 0; round < 3; round++)
            {
                for (int task = 0; task < tasks; task++)
                {
                    if (all[worker].Claim($"t{task}") is not null) Interlocked.Increment(ref owners[task]);
                }
            }
        });
        foreach (Leases worker in all) worker.Dispose();
        Assert.All(owners, count => Assert.Equal(1, count));
    }

    private Leases Worker(double seconds = 60) => new(DiskFileLayer.Instance, _folder.Path, TimeSpan.FromSeconds(seconds));

    private void Write(string task, LeaseContent content) => File.WriteAllText(_folder.File(task), JsonSerializer.Serialize(content, BatchJson.Default.LeaseContent));
}
