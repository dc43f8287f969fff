using System.Text;
using Qwen2Quant.Model.Tokenization;

namespace Qwen2Quant.Pipeline.Reports;

/// <summary>Ollama's Modelfile for a GGUF file beside it: where the weights are, Qwen2's chat form as a Go template, and the tokens that end an answer.</summary>
public static class Modelfile
{
    private const string Start = "<|im_start|>", End = "<|im_end|>";

    /// <param name="fileName">Of the GGUF file, or of its first part.</param>
    public static byte[] Write(string fileName, ITokenizer tokenizer)
    {
        StringBuilder text = new();
        text.Append("FROM ./").Append(fileName).Append('\n');
        if (tokenizer.FindAdded(Start) is not null && tokenizer.FindAdded(End) is not null)
        {
            text.Append("TEMPLATE \"\"\"{{- if .System }}").Append(Start).Append("system\n{{ .System }}").Append(End).Append("\n{{ end }}{{- range .Messages }}{{- if ne .Role \"system\" }}")
                .Append(Start).Append("{{ .Role }}\n{{ .Content }}").Append(End).Append("\n{{ end }}{{- end }}").Append(Start).Append("assistant\n\"\"\"\n");
            text.Append("PARAMETER stop \"").Append(Start).Append("\"\nPARAMETER stop \"").Append(End).Append("\"\n");
        }

        return Encoding.UTF8.GetBytes(text.ToString());
    }
}
