"""Realized: what an engine made of a policy, read from TensorRT's own account of its layers.

The account is the engine inspector's JSON, however it was had: by `backends.hopper.tensorrt`, by an export's build.py
(`--layers`) or by trtexec (`--exportLayerInfo --profilingVerbosity=detailed`). To read it takes no card and no
TensorRT. How it is read, and from which sources, is said in `backends.hopper.exported.inspected`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backends.hopper.exported.departures import Mismatch, mismatches, report
from backends.hopper.exported.inspected import Got, UninspectableError, found
from backends.hopper.manifest import calls_of, sites_of
from precision.policy import Scheme

if TYPE_CHECKING:
    from backends.hopper.lower import Lowered

__all__ = ["Mismatch", "UninspectableError", "realized_mismatches", "realized_report", "realized_schemes"]


def realized_schemes(info: Mapping[str, Any], lowered: "Lowered") -> dict[str, Scheme]:
    """How each site computes in the engine, in the order of first calls; of several calls one that departs, if any.

    Formats of operands are what the account shows. What it does not show, such as levers, and the format of a weight
    that is not listed, is the policy's; so where all is as it should be this equals the policy. A site that no layer
    names has its policy's scheme, too: `realized_mismatches` tells of it.

    Args:
        info: the account.
        lowered: what the engine was built from.

    Raises:
        UninspectableError: the account has no layers, or only their names.
    """
    schemes = dict(lowered.policy.schemes)
    departed: dict[str, list[Mismatch]] = {}
    for one in realized_mismatches(info, lowered):
        departed.setdefault(one.site, []).append(one)
    realized = {}
    for site in lowered.placed:
        shown = {one.field: one.got for one in departed.get(site, ()) if one.field in ("activation", "weight")}
        realized[site] = replace(
            schemes[site],
            activation=shown.get("activation", schemes[site].activation),
            weight=shown.get("weight", schemes[site].weight),
        )
    return realized


def realized_mismatches(info: Mapping[str, Any], lowered: "Lowered") -> tuple[Mismatch, ...]:
    """Sites that did not get what the policy says, and why, as far as the account tells; errors: `realized_schemes`."""
    return mismatches(_got(info, lowered), sites_of(lowered))


def realized_report(info: Mapping[str, Any], lowered: "Lowered") -> str:
    """A row for every site, then what departs: "these 3 of 78 sites ..."; errors are those of `realized_schemes`."""
    return report(_got(info, lowered), sites_of(lowered))


def _got(info: Mapping[str, Any], lowered: "Lowered") -> dict[str, Got]:
    return found(info, [call for calls in calls_of(lowered).values() for call in calls])
