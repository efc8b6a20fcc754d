"""How the page of a report looks: light and dark, on paper and on a phone."""

STYLE = """
:root { color-scheme: light dark; --page: #fdfdfe; --text: #1b1c20; --quiet: #5f636e; --line: #8883; --hit: #1f7a33; }
@media (prefers-color-scheme: dark) {
  :root { --page: #16171c; --text: #e9e9ee; --quiet: #a3a7b3; --hit: #6fd686; }
}
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem;
  background: var(--page); color: var(--text); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .8rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.4rem 0 .3rem; } h4 { font-size: .85rem; margin: .3rem 0; color: var(--quiet); }
.lead { font-size: 1.1rem; max-width: 46rem; } .lead p { margin: .4rem 0; }
.note, figcaption, small { color: var(--quiet); font-size: .85rem; }
.note, figcaption { max-width: 46rem; margin: .4rem 0; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0;
  margin: 1rem 0 0; font-size: .92rem; }
a { color: inherit; text-underline-offset: .2em; }
figure { margin: 1rem 0 .3rem; }
.chart svg { display: block; max-width: 100%; height: auto; color: var(--text); }
.scroll { overflow-x: auto; margin: .8rem 0 .3rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }
caption { text-align: start; font-weight: 600; padding: .3rem 0; }
th, td { padding: .28rem .7rem; text-align: end; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; } tbody th { font-weight: normal; }
th:first-child { text-align: start; padding-inline-start: 0; }
details { margin: .4rem 0; } summary { cursor: pointer; color: var(--quiet); font-size: .9rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 0 2rem; }
.columns ul, .columns ol { margin: 0; padding-inline-start: 1.3rem; font-size: .92rem; }
.columns ul { list-style: none; padding: 0; }
.hit { color: var(--hit); font-weight: 600; } .hit small { color: inherit; font-weight: normal; }
pre { overflow-x: auto; font-size: .8rem; line-height: 1.4; } code { font-size: .88em; }
@media print { nav { display: none; } h2 { break-after: avoid; } figure, article { break-inside: avoid; } }
"""
