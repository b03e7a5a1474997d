"""Style sheet of the report pages: one column, light and dark, readable from 360 pixels on."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: light-dark(#f6f5f2, #16181b);
  --card: light-dark(#fff, #212428);
  --ink: light-dark(#1d2226, #e8e6e1);
  --soft: light-dark(#5c666e, #a2a9af);
  --line: light-dark(#dedbd4, #363b40);
  --good: light-dark(#2f7d4f, #5fbf86);
  --open: light-dark(#2a6f97, #7fbde0);
  --warn: light-dark(#b7791f, #e9b95a);
  --shade: light-dark(#f08c00, #b3541e);
  --bad: light-dark(#a5281b, #ff9d8f);
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body {
  max-width: 54rem; margin: 0 auto; padding: 1.2rem 1rem 4rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif;
}
h1 { margin: 0 0 .8rem; font-size: .95rem; font-weight: 600; color: var(--soft); letter-spacing: .02em; }
h2 { margin: 0 0 .8rem; font-size: 1.2rem; line-height: 1.3; text-wrap: balance; }
p { margin: .7rem 0; overflow-wrap: anywhere; text-wrap: pretty; }
ul { padding-left: 1.2rem; }
li { margin: .3rem 0; overflow-wrap: anywhere; }
code { font: .9em ui-monospace, monospace; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.verdict { border-left: .35rem solid var(--open); padding: .2rem 0 .2rem 1rem; }
.verdict p { margin: 0; font-size: clamp(1.25rem, 1rem + 1.6vw, 1.75rem); line-height: 1.35; font-weight: 600; }
.verdict.good { border-color: var(--good); }
.verdict.warn { border-color: var(--warn); }
.verdict.bad { border-color: var(--bad); }
.warnings { list-style: none; padding: 0; margin: 1rem 0; }
.warnings li {
  background: var(--card); border: 1px solid var(--line); border-left: .35rem solid var(--warn); border-radius: 8px;
  padding: .6rem .8rem;
}
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.2rem 0; }
.tiles div {
  flex: 1 1 6.2rem; background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .6rem .8rem;
}
.tiles dd { margin: 0; font-size: 1.4rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.tiles dt { color: var(--soft); font-size: .8rem; }
nav { display: flex; flex-wrap: wrap; gap: .4rem; margin: 1.2rem 0; }
nav a {
  color: inherit; text-decoration: none; font-size: .85rem; border: 1px solid var(--line); border-radius: 99px;
  padding: .25rem .75rem; background: var(--card);
}
nav a:hover { border-color: var(--open); }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.1rem 1.2rem;
  margin: 1.1rem 0; scroll-margin-top: 1rem;
}
.scroll { overflow-x: auto; margin: .9rem 0; border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 600; background: var(--ground); }
tr > :first-child { text-align: left; position: sticky; left: 0; background: var(--card); font-weight: 500; }
thead tr > :first-child { background: var(--ground); }
figure { margin: 1.1rem 0; }
figure .scroll { border: 0; margin: 0; background: #fff; border-radius: 10px; padding: .4rem; }
figure .scroll img { display: block; width: 100%; max-width: 42rem; height: auto; margin: 0 auto; }
figure .scroll .wide { min-width: 34rem; max-width: none; }
figcaption { margin-top: .5rem; text-wrap: pretty; }
.case {
  border: 1px solid var(--line); border-radius: 12px; padding: .8rem; margin: .8rem 0; display: grid; gap: .4rem 1.2rem;
}
.case img, .blank { width: 100%; aspect-ratio: 1; border-radius: 8px; background: #fff; display: block; }
.case img { object-fit: contain; }
.blank { display: grid; place-items: center; background: var(--ground); color: var(--soft); font-size: .75rem; }
.case span { display: block; font-size: .8rem; line-height: 1.3; margin-top: .25rem; overflow-wrap: anywhere; }
.query { display: flex; align-items: center; gap: .8rem; font-weight: 600; }
.query img, .query .blank { width: 6.5rem; flex: none; }
.answer p { margin: 0 0 .4rem; font-size: .88rem; line-height: 1.35; }
.answer p span { display: block; }
.answer ol {
  list-style: none; margin: 0; padding: 0; display: grid; grid-template-columns: repeat(3, 1fr); gap: .5rem;
}
.answer li { margin: 0; padding: 3px; border: 3px solid transparent; border-radius: 10px; min-width: 0; }
.answer .true { border-color: var(--good); }
.answer small { color: var(--good); font-weight: 600; font-size: .75rem; }
.answer p small { float: right; color: var(--soft); }
.attention > p { margin: 0 0 .6rem; font-weight: 600; }
.scale { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; list-style: none; margin: 0 0 .8rem; padding: 0; }
.scale li { display: flex; align-items: center; gap: .25rem; margin: 0; font-size: .8rem; }
.scale mark { margin: 0; }
.scale i { width: 1.3rem; height: 1.3rem; border-radius: 4px; border: 1px solid var(--line); }
mark {
  background: color-mix(in srgb, var(--shade) var(--share), transparent); color: inherit; border-radius: 4px;
  padding: .1em .15em; margin: 0 -.15em; box-decoration-break: clone; -webkit-box-decoration-break: clone;
}
.attention article {
  border: 1px solid var(--line); border-radius: 12px; padding: .8rem; margin: .8rem 0; display: grid;
  grid-template: auto / 1fr 1fr; gap: .5rem 1.2rem;
}
.attention h3 { grid-column: 1 / -1; margin: 0; font-size: .95rem; }
.attention article > div { display: grid; grid-row: span 3; grid-template-rows: subgrid; gap: .5rem; min-width: 0; }
.attention article p { margin: 0; font-size: .88rem; line-height: 1.35; }
.attention p .soft { display: block; font-size: .8rem; }
.attention img, .attention .blank { width: 100%; max-width: 14rem; aspect-ratio: 1; border-radius: 8px; }
.attention img { object-fit: contain; }
.attention article .words { line-height: 1.75; }
.words small { display: block; color: var(--soft); line-height: 1.4; margin-top: .3rem; }
h3 { margin: 1.6rem 0 .5rem; font-size: 1rem; overflow-wrap: anywhere; }
.bars { list-style: none; margin: .9rem 0; padding: 0; display: grid; gap: .6rem; align-content: space-between; }
.bars li { display: grid; grid-template-columns: 1fr auto; gap: .15rem .8rem; margin: 0; font-size: .88rem; }
.bars span { line-height: 1.3; overflow-wrap: anywhere; }
.bars b { font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.3; white-space: nowrap; }
.bars i { grid-column: 1 / -1; height: .5rem; min-width: 2px; border-radius: 3px; background: var(--open); }
.bars small { color: var(--soft); font-weight: 400; }
.bars b small { display: inline-block; min-width: 3.6rem; text-align: right; }
.profile { margin: .9rem 0; }
.histograms { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .8rem 1.6rem; }
.histograms figure { margin: 0; }
.histograms svg { display: block; width: 100%; height: auto; }
.histograms rect { fill: var(--open); }
.histograms path { stroke: var(--line); }
.histograms text { fill: var(--soft); font: 10px system-ui, sans-serif; text-anchor: middle; }
.histograms .count { fill: var(--ink); }
.histograms .axis { font-size: 11px; }
.histograms .start { text-anchor: start; }
.pairs { display: flex; gap: .7rem; overflow-x: auto; scroll-snap-type: x proximity; padding-bottom: .4rem; }
.pairs article {
  border: 1px solid var(--line); border-radius: 12px; padding: .6rem; display: grid; grid-template-columns: 1fr 1fr;
  grid-template-rows: 1fr auto; gap: .4rem .6rem; flex: 0 0 14.5rem; scroll-snap-align: start;
}
.pairs article > div { min-width: 0; }
.pairs img, .pairs .blank { width: 100%; aspect-ratio: 1; border-radius: 8px; background: #fff; display: block; }
.pairs img { object-fit: contain; }
.pairs .blank { display: grid; place-items: center; background: var(--ground); text-align: center; }
.pairs [dir] {
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; font-size: .8rem;
  line-height: 1.3; margin-top: .3rem; overflow-wrap: anywhere;
}
.pairs p { grid-column: 1 / -1; margin: 0; color: var(--soft); font-size: .75rem; }
td.text, thead th.text { text-align: left; }
td.text { white-space: normal; min-width: 9rem; overflow-wrap: anywhere; }
@media (min-width: 48rem) {
  .profile { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .7rem; }
  .profile .bars { margin: 0; padding: .2rem .6rem .2rem 0; }
  .pairs { display: contents; }
  .attention article > div { grid-row: span 2; grid-template-columns: 9rem 1fr; column-gap: .9rem; }
  .attention article p:first-child { grid-column: 1 / -1; }
  .case { grid-template-columns: 6.5rem 1fr 1fr; }
  .query { flex-direction: column; align-items: stretch; gap: 0; }
}
@media (max-width: 34rem) {
  body { padding: 1rem .7rem 3rem; }
  section { padding: .9rem .8rem; }
  tr > :first-child { white-space: normal; min-width: 8rem; max-width: 9.5rem; overflow-wrap: anywhere; }
}
@media print { nav { display: none; } section { break-inside: avoid-page; } }
"""
