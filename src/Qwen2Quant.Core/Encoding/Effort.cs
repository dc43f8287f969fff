namespace Qwen2Quant.Core.Encoding;

/// <summary>How much time an encoder or a solver may spend on a lower error.</summary>
public enum Effort
{
    /// <summary>llama.cpp's own path, byte for byte, where the type has one.</summary>
    Reference,

    /// <summary>llama.cpp's error or less, in the least time.</summary>
    Fast,

    /// <summary>A better search.</summary>
    Normal,

    /// <summary>The best search there is, at any cost.</summary>
    High,
}
