using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using Qwen2Quant.Tests.Support;

namespace Qwen2Quant.EndToEnd.Engines;

/// <summary>
/// A Slurm cluster on this machine alone: MUNGE with its own key, a controller, and two nodes, each a slurmd with a name and a port of its own.
/// Everything lies in one temporary folder, by which its processes are known when it is taken down.
/// </summary>
[SupportedOSPlatform("linux")]
public sealed partial class SlurmCluster : IDisposable
{
    /// <summary>Starts a daemon, says its number, and kills it as soon as nobody holds the other end of its input: no daemon outlives the tests.</summary>
    private const string Keeper = """exec 2>/dev/null; log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!; cat >/dev/null; kill -KILL $!; wait""";

    private readonly TempFolder _folder = new();
    private readonly List<Process> _keepers = [];
    private readonly Dictionary<string, int> _daemons = [];

    public SlurmCluster()
    {
        try
        {
            Start();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public static IReadOnlyList<string> Nodes { get; } = ["node1", "node2"];

    public string Folder => _folder.Path;

    private string Configuration => _folder.File("slurm.conf");

    public string File(string name) => _folder.File(name);

    /// <summary>Submits a job with that environment beside the cluster's own; returns its number.</summary>
    public string Submit(IReadOnlyDictionary<string, string> environment, params string[] arguments) =>
        Run("sbatch", ["--parsable", $"--chdir={Folder}", .. arguments], environment).Trim();

    /// <summary>The job, or all tasks of the array.</summary>
    public IReadOnlyList<SlurmJob> Jobs(string id) => [.. Run("scontrol", ["show", "job", "--oneliner", id]).Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(SlurmJob.Parse)];

    public string NodeState(string node) => Run("sinfo", ["--noheader", "--Node", $"--nodes={node}", "--format=%T"]).Trim();

    /// <summary>Ends the shell of a job's script politely, and it alone, as Slurm does before a time limit; scancel would repeat itself while the job starts.</summary>
    public void StopScript(SlurmJob job)
    {
        const int terminate = 15;
        ProcFile script = WorkOf(job.Node!).Single(process => process.HasVariable("SLURM_JOB_ID", job.Id) && process.CommandLine is [_, var path] && Path.GetFileName(path) == "slurm_script");
        Assert.Equal(0, SendSignal(script.Id, terminate));
    }

    public void Cancel(string job) => Run("scancel", [job]);

    /// <summary>Programs of that name that jobs run on a node.</summary>
    public IReadOnlyList<ProcFile> Work(string node, string program) => [.. WorkOf(node).Where(process => process.CommandLine.Any(word => Path.GetFileName(word) == program))];

    /// <summary>The node dies: its slurmd, the supervisors of its jobs and all that they run are killed, and nothing of it says so to the controller.</summary>
    public void KillNode(string node)
    {
        Kill(_daemons[node]);
        IReadOnlyList<ProcFile> work = WorkOf(node);
        HashSet<int> jobs = [.. work.Select(process => process.Id)];
        foreach (int supervisor in work.Select(process => process.Parent).Distinct().Where(id => id > 1 && !jobs.Contains(id))) Kill(supervisor);
        foreach (int id in jobs) Kill(id);
        WaitUntil(() => WorkOf(node).Count == 0, TimeSpan.FromSeconds(10), $"{node} still works");
    }

    public void StartNode(string node) => StartDaemon(node, "slurmd", "-D", "-N", node);

    /// <summary>Looks every 100 ms; fails, with the controller's last words, when it takes too long.</summary>
    public void WaitUntil(Func<bool> condition, TimeSpan limit, string failure)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!condition())
        {
            if (watch.Elapsed > limit) Assert.Fail($"{failure} after {limit.TotalSeconds:F0} s\n{Tail("slurmctld.log", 30)}");
            Thread.Sleep(100);
        }
    }

    public void Dispose()
    {
        foreach (Process keeper in _keepers)
        {
            keeper.StandardInput.Close();
            if (!keeper.WaitForExit(TimeSpan.FromSeconds(10))) keeper.Kill(entireProcessTree: true);
            keeper.Dispose();
        }

        _keepers.Clear();
        // What the daemons started goes on without them: supervisors of jobs, scripts, workers.
        Stopwatch watch = Stopwatch.StartNew();
        while (ProcFile.All().Where(process => process.Id != Environment.ProcessId && process.Touches(Folder)).ToList() is { Count: > 0 } left)
        {
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(20), "processes of the cluster cannot be ended: " + string.Join(", ", left.Select(process => process.Id)));
            foreach (ProcFile process in left) Kill(process.Id);
            Thread.Sleep(50);
        }

        _folder.Dispose();
    }

    private void Start()
    {
        // MUNGE wants folders that everybody may pass through, and a key that nobody else may read.
        System.IO.File.SetUnixFileMode(Folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute);
        string key = File("munge.key");
        using (FileStream stream = new(key, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite }))
        {
            byte[] secret = new byte[1024];
            Random.Shared.NextBytes(secret);
            stream.Write(secret);
        }

        Directory.CreateDirectory(File("state"));
        Directory.CreateDirectory(File("spool"));
        System.IO.File.WriteAllText(Configuration, Configure(FreePorts(1 + Nodes.Count)));
        StartDaemon("munged", "munged", "--foreground", $"--key-file={key}", $"--socket={File("munge.socket")}", $"--pid-file={File("munged.pid")}", $"--log-file={File("munged.log")}", $"--seed-file={File("munged.seed")}");
        WaitUntil(() => System.IO.File.Exists(File("munge.socket")), TimeSpan.FromSeconds(20), $"munged is not there\n{Tail("munged.out", 10)}\n");
        StartDaemon("slurmctld", "slurmctld", "-D", "-c");
        foreach (string node in Nodes) StartNode(node);
        WaitUntil(() => Nodes.All(node => TryRun("sinfo", ["--noheader", "--Node", $"--nodes={node}", "--format=%T"], out string state) && state.Trim() == "idle"), TimeSpan.FromSeconds(60), "the nodes are not ready");
    }

    /// <summary>A failed node is noticed after some ten seconds, and a job that goes back into the queue waits five: else minutes, as befits a real cluster.</summary>
    private string Configure(int[] ports) => string.Create(CultureInfo.InvariantCulture, $"""
        ClusterName=qwen2quant
        SlurmctldHost=localhost(127.0.0.1)
        SlurmctldPort={ports[0]}
        SlurmUser=root
        SlurmdUser=root
        AuthType=auth/munge
        AuthInfo=socket={File("munge.socket")},cred_expire=5
        StateSaveLocation={File("state")}
        SlurmdSpoolDir={File("spool")}/%n
        SlurmctldPidFile={File("slurmctld.pid")}
        SlurmdPidFile={File("%n.pid")}
        SlurmctldLogFile={File("slurmctld.log")}
        SlurmdLogFile={File("%n.log")}
        ProctrackType=proctrack/linuxproc
        TaskPlugin=task/none
        MpiDefault=none
        SelectType=select/cons_tres
        SelectTypeParameters=CR_CPU_Memory
        SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_interval=1,sched_min_interval=0
        SlurmdParameters=config_overrides
        SlurmdTimeout=3
        MessageTimeout=3
        TCPTimeout=1
        KillWait=5
        ReturnToService=2
        NodeName={Nodes[0]} NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4096
        NodeName={Nodes[1]} NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4096
        PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP

        """);

    private static int[] FreePorts(int count)
    {
        List<TcpListener> listeners = [.. Enumerable.Range(0, count).Select(_ => new TcpListener(IPAddress.Loopback, 0))];
        foreach (TcpListener listener in listeners) listener.Start();
        int[] ports = [.. listeners.Select(listener => ((IPEndPoint)listener.LocalEndpoint).Port)];
        foreach (TcpListener listener in listeners) listener.Dispose();
        return ports;
    }

    private void StartDaemon(string name, string program, params string[] arguments)
    {
        ProcessStartInfo start = new("bash", ["-c", Keeper, "keeper", File($"{name}.out"), SlurmFactAttribute.Find(program)!, .. arguments]) { RedirectStandardInput = true, RedirectStandardOutput = true };
        start.Environment["SLURM_CONF"] = Configuration;
        Process keeper = Process.Start(start)!;
        _keepers.Add(keeper);
        _daemons[name] = int.Parse(keeper.StandardOutput.ReadLine()!, CultureInfo.InvariantCulture);
    }

    private string Run(string program, IReadOnlyList<string> arguments, IReadOnlyDictionary<string, string>? environment = null)
    {
        Assert.True(TryRun(program, arguments, out string output, environment), $"{program} {string.Join(' ', arguments)}\n{output}");
        return output;
    }

    private bool TryRun(string program, IReadOnlyList<string> arguments, out string output, IReadOnlyDictionary<string, string>? environment = null)
    {
        ProcessStartInfo start = new(SlurmFactAttribute.Find(program)!, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["SLURM_CONF"] = Configuration;
        foreach ((string name, string value) in environment ?? new Dictionary<string, string>()) start.Environment[name] = value;
        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        if (process.ExitCode != 0) output += error.GetAwaiter().GetResult();
        return process.ExitCode == 0;
    }

    private List<ProcFile> WorkOf(string node) => [.. ProcFile.All().Where(process => process.HasVariable("SLURMD_NODENAME", node) && process.HasVariable("SLURM_CONF", Configuration))];

    private string Tail(string name, int lines) => System.IO.File.Exists(File(name)) ? string.Join('\n', System.IO.File.ReadLines(File(name)).TakeLast(lines)) : $"no {name}";

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int SendSignal(int processId, int signal);

    private static void Kill(int id)
    {
        try
        {
            using Process process = Process.GetProcessById(id);
            process.Kill();
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException)
        {
            // It has ended by itself.
        }
    }
}
