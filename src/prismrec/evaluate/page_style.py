"""How the page of a report looks: light and dark, on paper and on a phone."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --text: #1b1f24; --quiet: #5b6470; --line: #d9dde3; --panel: #f6f7f9; --accent: #2b66bd; --hit: #147a50;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171c; --text: #e4e7eb; --quiet: #9aa4b1; --line: #333a44; --panel: #1c2027; --accent: #7fb0f5;
    --hit: #4cc38a;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 4rem; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", sans-serif; text-rendering: optimizeLegibility;
}
header, main { max-width: 72rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 3rem; }
h1 { font-size: clamp(1.6rem, 4vw, 2.3rem); line-height: 1.15; letter-spacing: -.02em; margin: 0 0 .4rem; }
h2 { font-size: 1.45rem; line-height: 1.25; letter-spacing: -.012em; margin: 0 0 .8rem; }
h3 { font-size: 1rem; line-height: 1.4; margin: 1.6rem 0 .5rem; }
p, ul { margin: 0 0 1rem; max-width: 44rem; }
a { color: var(--accent); }
.note, figcaption, small { color: var(--quiet); font-size: .875rem; line-height: 1.5; }
.note { margin-top: .6rem; }
nav {
  position: sticky; top: 0; z-index: 2; margin-top: 1.5rem; background: var(--page);
  border-bottom: 1px solid var(--line);
}
nav ul {
  list-style: none; display: flex; gap: 1.4rem; overflow-x: auto; max-width: 72rem; margin: 0 auto;
  padding: .7rem 1.25rem;
}
nav a { white-space: nowrap; text-decoration: none; font-size: .9rem; }
nav a:hover { text-decoration: underline; }
section { padding: 2.6rem 0 1.4rem; border-bottom: 1px solid var(--line); }
main > section:last-child { border: 0; }
.lead { margin: 1.4rem 0; } .lead p { font-size: 1.12rem; line-height: 1.5; margin: 0 0 .4rem; max-width: 48rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .8rem; margin: 1.6rem 0; }
.tiles > div { background: var(--panel); border-radius: .5rem; padding: .9rem 1.1rem; }
.tiles dt { color: var(--quiet); font-size: .85rem; }
.tiles dd { margin: 0; }
.tiles .value { font-size: 1.7rem; line-height: 1.3; font-weight: 600; letter-spacing: -.02em; }
.tiles .value, td, .rank { font-variant-numeric: tabular-nums; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)); gap: .3rem 2.5rem; }
.figures > div { min-width: 0; }
figure { margin: 0 0 1rem; min-width: 0; }
.chart svg { display: block; max-width: 100%; height: auto; overflow: visible; }
figcaption { margin: .5rem 0; max-width: 34rem; }
details { margin: .4rem 0 1rem; }
summary { cursor: pointer; color: var(--accent); font-size: .875rem; }
.scroll { overflow-x: auto; margin: .5rem 0; }
details .scroll { max-height: 26rem; overflow: auto; }
table { border-collapse: collapse; font-size: .85rem; line-height: 1.4; }
th, td { padding: .4rem .7rem .4rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { color: var(--quiet); font-weight: 500; vertical-align: bottom; }
th:first-child { text-align: start; }
tbody th { font-weight: 500; position: sticky; left: 0; background: var(--page); }
tbody th bdi { display: block; white-space: normal; min-width: min(7.5rem, 30vw); }
.figures tbody th bdi { min-width: 0; }
.example { background: var(--panel); border-radius: .5rem; padding: 1.1rem 1.3rem; margin: 1rem 0; }
.example h3 { margin: 0 0 .6rem; }
.columns { display: grid; grid-template-columns: 1fr 1fr 1.4fr; gap: .5rem 2rem; }
.columns > div { min-width: 0; }
.columns h4 { font-size: .85rem; font-weight: 500; color: var(--quiet); margin: .4rem 0; }
.columns ul { list-style: none; margin: 0; padding: 0; font-size: .875rem; line-height: 1.4; }
.columns li { padding: .28rem 0 .28rem 2rem; position: relative; overflow-wrap: anywhere; }
.columns > div:first-child li { padding-left: 0; }
.rank { position: absolute; left: 0; width: 1.6rem; text-align: right; color: var(--quiet); }
.hit { font-weight: 600; }
.hit small { font-weight: 400; }
.mark { color: var(--hit); }
.chip {
  border: 1px solid var(--line); border-radius: 1rem; padding: 0 .5rem; white-space: nowrap;
  font-size: .75rem; font-weight: 400;
}
pre {
  background: var(--panel); border-radius: .5rem; padding: 1rem 1.2rem; overflow-x: auto;
  font: .8rem/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; }
main { padding-bottom: 3rem; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media (max-width: 48rem) {
  header { padding-top: 1.6rem; }
  .columns { grid-template-columns: 1fr; }
  section { padding: 1.8rem 0 1rem; }
}
@media print {
  :root { --page: #fff; --text: #000; --quiet: #444; --line: #bbb; --panel: #f4f4f4; }
  body { font-size: 10.5pt; }
  nav { display: none; }
  .scroll, details .scroll { overflow: visible; max-height: none; }
  figure, .example, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""
