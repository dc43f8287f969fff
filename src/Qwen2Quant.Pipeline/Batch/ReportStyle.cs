namespace Qwen2Quant.Pipeline.Batch;

/// <summary>The style sheet of the report; without characters that XML would have escaped.</summary>
internal static class ReportStyle
{
    public const string Text = """
        :root { color-scheme: light dark; --page: #fff; --ink: #1c2127; --muted: #5a6470; --line: #d5dae0; --faint: #eceff2; --wash: #f6f7f9; --focus: #0b63c5;
          --gguf: #1f66ad; --gptq: #b3520c; --awq: #1d7a4c; --ct: #83409b; --mlx: #b02a52; --fp8: #5d6a12; --other: #5a6470; --bad: #a32626; }
        @media screen and (prefers-color-scheme: dark) {
          :root { --page: #14181d; --ink: #e4e8ec; --muted: #9aa5b1; --line: #3a434d; --faint: #262d35; --wash: #1b2027; --focus: #7db7ff;
            --gguf: #6cb1f0; --gptq: #f2a25c; --awq: #64c892; --ct: #cf98e4; --mlx: #f48aa6; --fp8: #c2cb5e; --other: #9aa5b1; --bad: #ff9a8f; }
        }
        * { box-sizing: border-box; }
        html { -webkit-text-size-adjust: 100%; }
        body { margin: 0 auto; padding: 2.5rem 1.5rem 3rem; max-width: 76rem; background: var(--page); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
        h1, h2, h3, p, dt, dd, li { overflow-wrap: anywhere; }
        h1 { margin: 0; font-size: 1.75rem; line-height: 1.25; font-weight: 650; letter-spacing: -.01em; }
        h2 { margin: 0 0 .4rem; font-size: 1.3rem; line-height: 1.3; font-weight: 650; }
        h3 { margin: 1.75rem 0 .5rem; font-size: 1rem; font-weight: 650; }
        .sub { margin: .35rem 0 0; color: var(--muted); }
        .muted { color: var(--muted); }
        .summary { margin: 0 0 1.1rem; max-width: 62rem; }
        .missing { margin: 1rem 0; color: var(--muted); }
        a { color: var(--focus); text-underline-offset: .15em; }
        nav { margin-top: 1rem; }
        nav ul, .legend { display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; margin: 0; padding: 0; list-style: none; }
        section { margin-top: 2.5rem; padding-top: 1.75rem; border-top: 1px solid var(--line); scroll-margin-top: 0; }
        .legend { gap: .25rem 1.25rem; font-size: .87rem; color: var(--muted); }
        .legend li { display: flex; align-items: center; gap: .4rem; }
        figure { margin: 1.4rem 0 0; }
        figcaption { margin-bottom: .35rem; font-size: .93rem; color: var(--muted); }
        figcaption strong { color: var(--ink); font-weight: 650; }
        .scroll { overflow-x: auto; }
        :focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; border-radius: 3px; }
        .plot { display: block; width: 100%; min-width: 40rem; height: auto; font-size: 11.5px; overflow: visible; pointer-events: none; }
        .plot text { fill: var(--ink); }
        .grid { fill: none; stroke: var(--faint); }
        .axis { fill: none; stroke: var(--muted); }
        .plot .ticks text, .plot .baselabel { fill: var(--muted); }
        .plot .names text { font-weight: 600; }
        .base { fill: none; stroke: var(--muted); stroke-dasharray: 6 4; }
        .front { fill: none; stroke: var(--ink); stroke-width: 1; stroke-opacity: .55; }
        .leader { fill: none; stroke: var(--muted); stroke-width: .7; }
        .plot .label, .plot .baselabel { paint-order: stroke; stroke: var(--page); stroke-width: 3px; stroke-linejoin: round; }
        .plot .label.best { font-weight: 650; }
        .f-gguf { --c: var(--gguf); } .f-gptq { --c: var(--gptq); } .f-awq { --c: var(--awq); } .f-ct { --c: var(--ct); }
        .f-mlx { --c: var(--mlx); } .f-fp8 { --c: var(--fp8); } .f-other { --c: var(--other); }
        .bar { fill: none; stroke: var(--c, var(--muted)); stroke-opacity: .6; }
        .mark { fill: var(--c); }
        .pt { pointer-events: auto; outline: none; }
        .pt path { fill: var(--c); stroke: var(--page); stroke-width: 1; }
        .pt.best path { stroke: var(--ink); stroke-width: 1.2; }
        .pt.out path { fill: var(--page); stroke: var(--c); stroke-width: 1.3; }
        .pt:hover path, .pt:focus path, .pt.hit path { stroke: var(--ink); stroke-width: 2.6; }
        .key { width: 14px; height: 14px; flex: none; vertical-align: -2px; }
        .key.wide { width: 28px; }
        table { border-collapse: collapse; width: 100%; margin-top: 1.5rem; font-size: .82rem; font-variant-numeric: tabular-nums; }
        caption { white-space: normal; padding-bottom: .4rem; text-align: left; color: var(--muted); }
        caption > span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 2rem); }
        th, td { padding: .34rem .4rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--faint); }
        thead th { vertical-align: bottom; white-space: normal; font-weight: 600; border-bottom: 1px solid var(--muted); }
        th:first-child { padding-left: 2px; }
        td:last-child, thead th:last-child { padding-right: 2px; }
        tbody th { font-weight: 400; }
        .n { text-align: right; }
        thead button { all: unset; cursor: pointer; }
        thead button:hover { text-decoration: underline; text-underline-offset: .2em; }
        thead button:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
        [aria-sort=ascending] button::after { content: " ▲"; font-size: .7em; }
        [aria-sort=descending] button::after { content: " ▼"; font-size: .7em; }
        tbody tr:hover, tbody tr.hit { background: var(--wash); }
        tr.hit th { box-shadow: inset 2px 0 0 var(--ink); }
        .off { color: var(--muted); }
        .name { display: block; padding-left: 18px; color: var(--muted); font-size: .93em; }
        .se { color: var(--muted); font-size: .93em; }
        strong { font-weight: 700; }
        .tag, .state { display: inline-block; padding: 0 .4em; border: 1px solid var(--line); border-radius: 3px; font-size: .85em; line-height: 1.4; }
        .tag { margin-left: .1em; padding: 0 .25em; color: var(--muted); }
        .state { font-weight: 400; }
        .s-done { border-color: transparent; padding: 0; font-size: inherit; }
        .s-rejected, .s-failed { color: var(--bad); border-color: currentColor; }
        .s-failed { font-weight: 650; }
        .s-running, .s-waiting, .s-other { color: var(--muted); border-style: dashed; }
        dl { margin: 0; }
        .messages div { padding: .5rem 0; border-bottom: 1px solid var(--faint); }
        dt { font-weight: 600; }
        dd { margin: 0; }
        footer { margin-top: 3rem; padding-top: 1.5rem; border-top: 1px solid var(--line); font-size: .87rem; }
        footer h2 { font-size: 1rem; }
        footer dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: .6rem 2.5rem; }
        footer dd { color: var(--muted); }
        #tip { position: absolute; z-index: 1; max-width: min(24rem, 90vw); padding: .35rem .6rem; border-radius: 4px; background: var(--ink); color: var(--page); font-size: .82rem; line-height: 1.4; pointer-events: none; overflow-wrap: anywhere; }
        #tip[hidden] { display: none; }
        @media (max-width: 40rem) {
          body { padding: 1.25rem .9rem 2rem; }
          h1 { font-size: 1.4rem; }
          .scroll { margin: 0 -.9rem; padding: 0 .9rem; }
        }
        @media print {
          @page { margin: 12mm; }
          body { max-width: none; padding: 0; font-size: 9.5pt; }
          nav, #tip { display: none; }
          .scroll { overflow: visible; }
          .plot { min-width: 0; }
          table { font-size: 7pt; }
          th, td { padding: .15rem .22rem; }
          td .se { display: block; }
          td:last-child { white-space: normal; }
          tbody .key { width: 9px; height: 9px; }
          .legend, figcaption, footer { font-size: 8.5pt; }
          figure, tr, .messages div, footer div { break-inside: avoid; }
          h2, h3, figcaption, caption { break-after: avoid; }
          section + section { break-before: page; }
        }

        """;
}
