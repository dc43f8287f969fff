using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Cli;

/// <summary>Exit codes, a contract with scripts.</summary>
internal static class ExitCodes
{
    public const int Done = 0;
    public const int InternalError = 1;
    public const int Usage = 2;
    public const int InputRefused = 3;
    public const int VerificationFailed = 4;
    public const int Substituted = 5;
    public const int Resource = 6;
    public const int TryAgain = 75;

    /// <summary>Added to the number of the signal that ended the run: SIGINT 130, SIGTERM 143.</summary>
    public const int SignalBase = 128;

    public static int Of(ErrorKind kind) => kind switch
    {
        ErrorKind.Usage => Usage,
        ErrorKind.InvalidInput or ErrorKind.Unsupported or ErrorKind.Numeric => InputRefused,
        ErrorKind.Verification => VerificationFailed,
        ErrorKind.Substitution => Substituted,
        ErrorKind.Resource => Resource,
        ErrorKind.Busy => TryAgain,
        _ => InternalError,
    };
}
