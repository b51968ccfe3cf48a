"""The style of a report: phone first, light and dark, no wider than the screen, and legible without colour."""

from importlib.resources import files

# Nine shades of one hue, evenly darker, so that they stay in order in black and white; the same in the dark.
_SHADES = ("#f4f7fb", "#dfe8f3", "#c7d8ea", "#aac4df", "#8aadd1", "#6892bf", "#4876a8", "#2c5a8c", "#133c6b")
_HEAT = "".join(
    f".h{step}{{background:{shade};color:{'#fff' if step > 5 else '#111'}}}" for step, shade in enumerate(_SHADES)
)

STYLE = files("precision_search.report").joinpath("report.css").read_text(encoding="utf-8") + _HEAT
