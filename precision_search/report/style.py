"""The style of a report: phone first, light and dark, no wider than the screen, and legible without colour."""

from importlib.resources import files

from precision_search.report.chart import SHADES

# The shades stay the same in the dark, where a cell brings its ground along.
_HEAT = "".join(
    f".h{step}{{background:{shade};color:{'#fff' if step > 5 else '#111'}}}" for step, shade in enumerate(SHADES)
)

STYLE = files("precision_search.report").joinpath("report.css").read_text(encoding="utf-8") + _HEAT
