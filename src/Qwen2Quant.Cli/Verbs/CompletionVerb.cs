using System.CommandLine;
using Qwen2Quant.Core.Errors;

namespace Qwen2Quant.Cli.Verbs;

/// <summary>Prints a script that lets a shell complete by asking the program (the <c>[suggest]</c> directive of the parser).</summary>
internal static class CompletionVerb
{
    private static readonly Dictionary<string, string> Scripts = new(StringComparer.Ordinal)
    {
        ["bash"] = """
            _qwen2quant() {
                local IFS=$'\n'
                COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}") $(qwen2quant "[suggest:${COMP_POINT}]" "${COMP_LINE}" 2>/dev/null))
            }
            complete -o filenames -F _qwen2quant qwen2quant
            """,
        ["zsh"] = """
            #compdef qwen2quant
            _qwen2quant() {
                local -a found
                found=("${(@f)$(qwen2quant "[suggest:${#BUFFER}]" "${BUFFER}" 2>/dev/null)}")
                compadd -- $found
                _files
            }
            compdef _qwen2quant qwen2quant
            """,
        ["fish"] = """
            complete -c qwen2quant -a '(set -l line (commandline -cp); qwen2quant "[suggest:"(string length -- "$line")"]" "$line" 2>/dev/null)'
            """,
        ["pwsh"] = """
            Register-ArgumentCompleter -Native -CommandName qwen2quant -ScriptBlock {
                param($word, $line, $position)
                qwen2quant "[suggest:$position]" "$line" | ForEach-Object { [System.Management.Automation.CompletionResult]::new($_) }
            }
            """,
    };

    public static Command Create(VerbRunner run)
    {
        Argument<string> shell = new("SHELL") { Description = string.Join(", ", Scripts.Keys) };
        Verb verb = new("completion", "Prints a completion script for a shell.", "completion bash >> ~/.bashrc");
        verb.Arguments.Add(shell);
        verb.SetAction(parsed => run(parsed, session =>
        {
            string name = session.Get(shell);
            if (!Scripts.TryGetValue(name, out string? script))
            {
                throw new QuantException(ErrorKind.Usage, "there is no completion for this shell") { Found = name, Expected = string.Join(", ", Scripts.Keys) };
            }

            session.Out.WriteLine(script);
            return ExitCodes.Done;
        }));
        return verb;
    }
}
