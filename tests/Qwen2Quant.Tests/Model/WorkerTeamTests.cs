using Qwen2Quant.Core.Running;

namespace Qwen2Quant.Tests.Model;

public class WorkerTeamTests
{
    [Theory]
    [InlineData(1, 0)]
    [InlineData(1, 7)]
    [InlineData(4, 1)]
    [InlineData(4, 1000)]
    public void RunsEachTaskOnce(int threads, int tasks)
    {
        int[] runs = new int[tasks];
        new WorkerTeam(threads).Run(tasks, task => Interlocked.Increment(ref runs[task]));
        Assert.All(runs, count => Assert.Equal(1, count));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public void ThrowsWhatATaskThrows(int threads)
    {
        WorkerTeam team = new(threads);
        Assert.Throws<FormatException>(() => team.Run(50, task =>
        {
            if (task == 17) throw new FormatException();
        }));
        int sum = 0;
        team.Run(10, task => Interlocked.Add(ref sum, task));
        Assert.Equal(45, sum);
    }

    [Fact]
    public void RunsInsideARun()
    {
        WorkerTeam team = new(4);
        int count = 0;
        team.Run(8, _ => team.Run(8, _ => Interlocked.Increment(ref count)));
        Assert.Equal(64, count);
    }
}
