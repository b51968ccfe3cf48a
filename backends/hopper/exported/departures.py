"""Departures: where an engine departs from the policy that its model was made under, and why as far as can be told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Calls = Mapping[str, Any]
"""Call of a site -> `inspected.Got`."""
Sites = Mapping[str, Mapping[str, Any]]
"""Sites of program.json: `activation`, `weight` (None at a product of two activations), ONNX's `op`, `weight_scale`."""
SCALAR_ONLY = (
    "its weight has a scale per channel, and TensorRT's fusion of dense products was seen to take one scale an operand"
    " (NVIDIA/TensorRT-Model-Connect pull 1386); try weight_scale tensor"
)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A site that did not get what its policy says."""

    site: str
    field: str
    wanted: str
    got: str
    why: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.site}: {self.field} {self.got} in place of {self.wanted}: {self.why}"


def mismatches(got: Calls, sites: Sites) -> tuple[Mismatch, ...]:
    """Hold what calls got against what the sites of a manifest are to have, in its order.

    Args:
        got: by call.
        sites: those of program.json.
    """
    kept: list[Mismatch] = []
    for site, wanted in sites.items():
        departed: dict[str, Mismatch] = {}
        for call in (call for call in got if site_of(call, sites) == site):
            for one in _departures(site, wanted, got[call]):
                departed.setdefault(one.field, one)
        kept += departed.values()
    return tuple(kept)


def report(got: Calls, sites: Sites) -> str:
    """A table of sites, then those that departed; arguments are those of `mismatches`."""
    rows = [("site", "policy", "engine", "fused with", "layer")]
    for call, held in got.items():
        wanted = sites[site_of(call, sites)]
        rows.append(
            (
                call,
                _product(wanted["activation"], wanted["weight"]),
                _product(held.read("activation"), held.read("weight")) if held.layers else "-",
                ", ".join(held.fused) or "-",
                ", ".join(layer.tactic or layer.name for layer in held.layers) or "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    departed = mismatches(got, sites)
    places = dict.fromkeys(one.site for one in departed)
    if not places:
        return "\n".join([*lines, f"all of {len(sites)} sites got what the policy says"])
    lines.append(f"{len(places)} of {len(sites)} sites did not get what the policy says:")
    return "\n".join([*lines, *(f"  {one}" for one in departed)])


def site_of(call: str, sites: Mapping[str, Any]) -> str:
    """Site of a call: its name, less `#2` of a second one."""
    return call if call in sites else call.rpartition("#")[0] or call


def _departures(site: str, wanted: Mapping[str, Any], got: Any) -> list[Mismatch]:
    if not got.layers:
        why = f"no layer of the engine names site/{got.call}/compute: it was folded, or fused without its name"
        return [Mismatch(site, "layer", str(wanted["activation"]), "nothing", why)]
    departed = []
    for field in ("activation", "weight"):
        shown = got.read(field)
        if wanted[field] is not None and shown is not None and shown != wanted[field]:
            departed.append(Mismatch(site, field, str(wanted[field]), shown, _why(wanted, str(wanted[field]), got)))
    if got.read("sums") in ("fp16", "bf16"):
        why = f"TensorRT chose {got.layers[0].tactic}"
        departed.append(Mismatch(site, "sums", "fp32", str(got.read("sums")), why))
    return departed


def _why(wanted: Mapping[str, Any], fmt: str, got: Any) -> str:
    """As far as the account tells."""
    chosen = next((layer for layer in got.layers if layer.tactic), got.layers[0])
    reasons = []
    if fmt == "fp32" and "tf32" in (got.read("activation"), got.read("weight")):
        reasons.append("TF32 was allowed; build.py turns it off")
    left = [role for role in got.apart or {} if role.startswith("dequantize")]
    if fmt.startswith("fp8") and left:
        where = (got.apart or {})[left[0]]
        reasons.append(f"{', '.join(left)} ran apart, in {where}: TensorRT found no FP8 kernel to fuse it into")
    if fmt.startswith("fp8") and not str(wanted["activation"]).startswith("fp8"):
        reasons.append("the weight was dequantized when the engine was built: the same numbers, and no bytes saved")
    elif fmt.startswith("fp8") and wanted.get("op") == "MatMul" and wanted.get("weight_scale") == "channel":
        reasons.append(SCALAR_ONLY)
    elif fmt.startswith("fp8") and wanted.get("op") in ("Conv", "ConvTranspose"):
        reasons.append("FP8 convolutions are built only for some channels, taps and strides")
    if got.reformats:
        reasons.append(f"{got.reformats} reformats stand around it")
    reasons.append(f"TensorRT chose {chosen.tactic or chosen.name} ({chosen.kind})")
    return "; ".join(reasons)


def _product(activation: str | None, weight: str | None) -> str:
    return activation or "?" if weight is None else f"{activation or '?'} x {weight}"
