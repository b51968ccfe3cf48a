"""The style of a report: dark on white, no wider than the screen, and legible without colour."""

# Nine shades of one hue, evenly darker, so that they stay in order in black and white.
_SHADES = ("#f4f7fb", "#dfe8f3", "#c7d8ea", "#aac4df", "#8aadd1", "#6892bf", "#4876a8", "#2c5a8c", "#133c6b")
_HEAT = "".join(
    f".h{step}{{background:{shade};color:{'#fff' if step > 5 else '#111'}}}" for step, shade in enumerate(_SHADES)
)

STYLE = (
    """
:root{color-scheme:light}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:1rem;max-width:72rem;background:#fff;color:#181818;font:1rem/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.2;margin:.25rem 0;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.5rem 0 .75rem;padding-top:.75rem;border-top:2px solid #181818}
h3{font-size:1rem;margin:1.25rem 0 .5rem;overflow-wrap:anywhere}
#verdict h2{border:0;margin-top:.5rem;padding:0;font-size:1rem;font-weight:600;color:#444}
p,li,dd,td,th,figcaption,pre{overflow-wrap:break-word}
p{margin:.5rem 0;max-width:48rem}
.model{color:#444}
.note{padding-left:.75rem;border-left:3px solid #888;color:#333}
.heard{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.verdict{max-width:none;font-size:1.25rem;padding:.75rem 1rem;border:3px solid #181818;border-radius:.4rem}
.verdict.kept{background:#eaf5ec}
.verdict.broken{background:#fdeeee;border-style:dashed}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(14rem,100%),1fr));gap:.75rem;margin:1rem 0}
.facts div{border:1px solid #bbb;border-radius:.4rem;padding:.5rem .75rem}
.facts dt{font-size:.85rem;color:#444}
.facts dd{margin:0;font-size:1.05rem}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1rem}
nav a{color:#0b4a8f;padding:.25rem 0}
.scroll{position:relative;overflow:auto;width:fit-content;max-width:100%;max-height:80vh;margin:.75rem 0;
border:1px solid #bbb}
table{border-collapse:collapse;font-size:.875rem;width:max-content;min-width:min(100%,30rem)}
caption{text-align:left;padding:.5rem;font-weight:600;color:#333}
caption span{position:sticky;left:.5rem;display:inline-block;max-width:min(60rem,calc(100vw - 3.5rem))}
th,td{padding:.3rem .55rem;text-align:left;vertical-align:top;border-bottom:1px solid #ddd}
thead th{position:sticky;top:0;z-index:1;background:#ececec;border-bottom:2px solid #666}
tbody th,tr>th[scope=row]{font-weight:500;background:#fff}
.number,.heat td{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.prose{white-space:normal;max-width:26rem;overflow-wrap:anywhere}
.prose ul{margin:0;padding-left:1.1rem}
.prose details{margin:0}
.prose summary{font-weight:400;padding:0}
.heat td,.heat th{border:1px solid #fff}
.heat th[scope=row],.sites th[scope=row]{position:sticky;left:0;max-width:20rem;overflow-wrap:anywhere;
border-right:1px solid #888}
.heat th[scope=row],.heat td.number{border-bottom-color:#ddd}
.heat td.chosen{outline:2px solid #181818;outline-offset:-2px;font-weight:700}
.heat td.refused{background:repeating-linear-gradient(45deg,#fff 0 5px,#c9c9c9 5px 7px);color:#181818}
.heat td.absent{color:#555}
.dot{margin-right:.3rem}
.legend{font-size:.875rem;max-width:none}
.legend span{display:inline-block;padding:.05rem .45rem;border:1px solid #999;margin:0 .1rem .2rem 0}
.margins .number{white-space:nowrap}
details{margin:.5rem 0}
summary{cursor:pointer;font-weight:600;padding:.35rem 0;overflow-wrap:anywhere}
pre{padding:.75rem;font-size:.8rem}
code{font-size:.85em}
.margins ul{list-style:none;padding:0;margin:.5rem 0}
.margins li{display:grid;grid-template-columns:minmax(0,15rem) minmax(0,1fr) 8rem;gap:.25rem .75rem;
align-items:center;padding:.15rem 0}
.margins .name{overflow-wrap:anywhere}
.track{position:relative;height:1rem;background:linear-gradient(#181818,#181818) center/1px 100% no-repeat #f2f2f2}
.track span{position:absolute;top:.15rem;bottom:.15rem}
.track .kept{background:#2c5a8c}
.track .broken{background:repeating-linear-gradient(45deg,#b02a2a 0 3px,#fff 3px 6px);border:1px solid #b02a2a}
figure{margin:1rem 0}
figcaption{font-size:.9rem}
.plot{display:block;width:100%;max-width:34rem;height:auto;font:11px system-ui,sans-serif}
.wide .plot{max-width:38rem}
.plot text{fill:#181818}
.plot .axis{stroke:#181818}
.plot .grid{stroke:#e2e2e2}
.plot .dashed{stroke:#181818;stroke-dasharray:5 4}
.plot .front{fill:none;stroke:#555;stroke-width:1.5}
.plot .foretold{fill:none;stroke:#555;stroke-width:1.2;stroke-dasharray:1.5 3}
.plot .kept{fill:#2c5a8c;fill-opacity:.85}
.plot .broken{fill:none;stroke:#b02a2a;stroke-width:1.8}
.plot .held{fill:#fff;fill-opacity:0;stroke:#181818}
.plot .ring{fill:#fff;fill-opacity:0;stroke:#181818;stroke-width:2}
.small-multiples{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(20rem,100%),1fr));gap:.5rem 1.5rem}
.clip{border-top:1px solid #bbb;margin-top:1rem}
.players{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(17rem,100%),1fr));gap:.5rem 1.5rem}
.players span{display:block;font-size:.9rem}
audio{width:100%}
img{display:block;max-width:100%;height:auto;margin:.75rem 0}
.scores{font-size:.9rem}
@media (max-width:40rem){
body{padding:.75rem}
.margins li{grid-template-columns:minmax(0,1fr) auto}
.margins .track{grid-column:1/-1;grid-row:2}
.heat th[scope=row],.sites th[scope=row]{max-width:8rem}
table{font-size:.8rem}
.prose{max-width:15rem}
th,td{padding:.25rem .4rem}
.gates th[scope=row]{max-width:7rem}
.cost th[scope=row]{max-width:8rem}
.cost td{max-width:7rem}
}
@media print{
.scroll{max-height:none;overflow:visible;border:0}
nav,audio{display:none}
body,.heat td,.track,.track span,.legend span{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""
    + _HEAT
)
