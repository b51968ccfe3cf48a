"""precision_cfg: a policy of a decoder-only model as the JSON by which tt_transformers sets precision, and back.

tt_transformers is Tenstorrent's own stack for decoder-only models. It sets the type of six groups of tensors and the
compute kernel config of eight groups of operations, a decoder layer at a time; the names here are its enums'. Source:
tt-metal, models/tt_transformers/tt/model_config.py as of commit 0039cbf (TensorGroup, PrecisionSetting, OpGroup,
MathFidelitySetting, parse_decoder_json, DecodersPrecision; the kernel configs in ModelArgs). Its OpGroup.ACCURACY is no
operation, and is left to its default.

The JSON says types and passes. It does not say blocks of K, which tt_transformers chooses itself, so that sums are
rounded in other places than in our programs; nor what levers did to the weights (`remarks` has both).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends.tenstorrent.program import Compute
from backends.tenstorrent.tt_transformers_settings import (
    DTYPES,
    FIDELITIES,
    FUSED,
    NAME,
    OPERATIONS,
    PARTS,
    PRODUCTS,
    ROLES,
    WEIGHTS,
    fidelity_setting,
    unsaid,
)
from precision.policy import Policy, Scheme


class PrecisionCfgError(ValueError):
    """A policy that tt_transformers has no settings for, or a file that is none of its; names everything wrong."""

    def __init__(self, conflicts: tuple[str, ...]) -> None:
        super().__init__("tt_transformers cannot be told this\n  " + "\n  ".join(conflicts))
        self.conflicts = conflicts


@dataclass(frozen=True, slots=True)
class LayerPrecision:
    """What the JSON says of one decoder layer, in our words."""

    tensors: Mapping[str, str]
    """TensorGroup -> format."""
    operations: Mapping[str, Compute]
    """OpGroup -> kernel config."""


Layer = list[tuple[str, str, Scheme]]
"""Site, role and scheme of each product of a decoder layer."""


def has_decoder(policy: Policy) -> bool:
    """Whether a policy has a whole layer as tt_transformers runs it; an encoder of another kind has none."""
    layers, _ = _layers(policy)
    return any(not list(_missing(sites)) for sites in layers.values())


def precision_cfg(policy: Policy) -> dict[str, Any]:
    """What a policy says of its decoder layers, as plain data for `json.dumps`; every group of every layer is said.

    Of sites outside the layers (embeddings, heads, a codec) the JSON has no groups: see `remarks`.

    Raises:
        PrecisionCfgError: names every group whose sites disagree, every scheme that has no setting, and every layer
            that is not of the kind that tt_transformers runs.
    """
    layers, conflicts = _layers(policy)
    decoders = {}
    for index, sites in sorted(layers.items()):
        tensors, faults = _tensors(sites)
        operations, more = _operations(sites)
        decoders[str(index)] = {"precision_cfg": tensors, "fidelity_cfg": operations}
        for fault in [*_missing(sites), *faults, *more]:
            conflicts[fault].append(index)
    if conflicts:
        raise PrecisionCfgError(tuple(f"{_of(where)}{fault}" for fault, where in conflicts.items()))
    return {"decoders": decoders}


def read_precision_cfg(data: Mapping[str, Any]) -> dict[int, LayerPrecision]:
    """What the JSON says, by decoder layer; what it leaves out is tt_transformers' own choice and is left out here.

    Raises:
        PrecisionCfgError: names everything that tt_transformers would not read.
    """
    decoders = data.get("decoders")
    if not isinstance(decoders, Mapping) or not decoders:
        raise PrecisionCfgError(("decoders: missing or empty, must map numbers of layers to settings",))
    found, wrong = {}, []
    for index, settings in decoders.items():
        if not str(index).isdecimal():
            wrong.append(f"decoders.{index}: must be the number of a layer")
            continue
        said: list[dict[str, Any]] = []
        for key, groups, values in (
            ("precision_cfg", (*WEIGHTS, "KV_CACHE", "ACTIVATION"), DTYPES),
            ("fidelity_cfg", OPERATIONS, FIDELITIES),
        ):
            entries = settings.get(key, {})
            for group, value in entries.items():
                if group not in groups or value not in values:
                    wrong.append(
                        f"decoders.{index}.{key}.{group}: {value}; must be one of {', '.join(groups)}, set to one of"
                        f" {', '.join(values)}"
                    )
            said.append({group: values[value] for group, value in entries.items() if value in values})
        found[int(index)] = LayerPrecision(*said)
    if wrong:
        raise PrecisionCfgError(tuple(wrong))
    return found


def remarks(policy: Policy) -> tuple[str, ...]:
    """What must be known to run a policy by its JSON, which does not say it; a line each."""
    lines = [
        "blocks of K are tt_transformers' own: sums are rounded in other places than where the policy was measured"
    ]
    outside = [site for site in policy if not NAME.fullmatch(site)]
    if outside:
        lines.append(f"{len(outside)} sites have no group, their precision is set elsewhere: {_some(outside)}")
    changed = [site for site in policy if policy[site].levers or policy[site].adapted]
    changed = [site for site in changed if site not in outside and not site.rpartition("#")[0]]
    if changed:
        lines.append(
            f"the weights of {len(changed)} sites were changed for the policy (levers, training): load those that this"
            f" export writes, not the model's own: {_some(changed)}"
        )
    finer = [
        site
        for site in policy
        if (match := NAME.fullmatch(site)) and ROLES.get(match["last"]) == "qk" and policy[site].activation != "bf16"
    ]
    if finer:
        lines.append(f"queries are stored as ACTIVATION says, keys as KV_CACHE says: {_some(finer)}")
    return tuple(lines)


def _layers(policy: Policy) -> tuple[dict[int, Layer], dict[str, list[int]]]:
    """Sites by layer, and what is wrong with the model as a whole."""
    layers: defaultdict[int, Layer] = defaultdict(list)
    conflicts: defaultdict[str, list[int]] = defaultdict(list)
    stacks: dict[str, None] = {}
    for site in policy:
        match = NAME.fullmatch(site)
        if match is None:
            continue
        stacks[match["stack"] or "(the model itself)"] = None
        role = ROLES.get(match["last"])
        if role is None:
            conflicts[f"{match['last']}: no part that a decoder layer of tt_transformers has"].append(
                int(match["layer"])
            )
        else:
            layers[int(match["layer"])].append((site, role, policy[site]))
    if not layers:
        conflicts["the policy has no decoder layers: sites named like layers.0.attention.q_proj"] = []
    elif sorted(layers) != list(range(len(layers))):
        conflicts[f"layers are numbered {_some(map(str, sorted(layers)))}; must be 0 to {len(layers) - 1}"] = []
    if len(stacks) > 1:
        conflicts[f"{len(stacks)} stacks of layers, {', '.join(stacks)}; export one model at a time"] = []
    return dict(layers), conflicts


def _missing(sites: Layer) -> Iterator[str]:
    """What a layer lacks."""
    there = {part for _, role, _ in sites for part in FUSED.get(role, (role,))}
    if PARTS - there:
        yield (
            f"no site is {', '.join(sorted(PARTS - there))}, and tt_transformers runs it in every layer; if there is"
            " one, name it as ROLES in tt_transformers_settings.py has it"
        )


def _tensors(sites: Layer) -> tuple[dict[str, str], list[str]]:
    """Settings of the groups of tensors, and what stands in their way."""
    found, faults = {}, []
    stored = {
        group: {site: scheme.weight for site, role, scheme in sites if role in roles}
        for group, roles in WEIGHTS.items()
    }
    stored["KV_CACHE"] = {site: scheme.activation for site, role, scheme in sites if role in PRODUCTS}
    stored["ACTIVATION"] = {site: scheme.activation for site, role, scheme in sites if role not in PRODUCTS}
    for group, formats in stored.items():
        setting, fault = _agreed(group, formats, {ours: theirs for theirs, ours in DTYPES.items()})
        found[group] = setting
        faults += fault
    if found["ACTIVATION"] not in ("", "BF16") and found["KV_CACHE"] == "BF16":
        faults.append(
            f"KV_CACHE: queries are stored as ACTIVATION, {found['ACTIVATION']}, and #qk has them in bf16; allow #qk"
            f" {DTYPES[found['ACTIVATION']]} or let the layer's activations be bf16"
        )
    return found, faults


def _operations(sites: Layer) -> tuple[dict[str, str], list[str]]:
    """Settings of the groups of operations, and what stands in their way."""
    found: dict[str, str] = {}
    faults: dict[str, None] = {}
    for group, roles in OPERATIONS.items():
        settings: dict[str, str] = {}
        for site, role, scheme in sites:
            if role in roles:
                faults.update(dict.fromkeys(unsaid(scheme, role)))
                setting = fidelity_setting(scheme)
                if setting is not None:
                    settings[site] = setting
        if settings:
            found[group], fault = _agreed(group, settings, {name: name for name in FIDELITIES})
            faults.update(dict.fromkeys(fault))
    return found, list(faults)


def _agreed(group: str, wanted: Mapping[str, str], settings: Mapping[str, str]) -> tuple[str, list[str]]:
    """The setting that all sites of a group have, or why there is none."""
    if not wanted:
        return "", []
    values = set(wanted.values())
    if len(values) > 1:
        said = ", ".join(f"{site.rpartition('.')[2]} {value}" for site, value in wanted.items())
        return "", [f"{group}: has one setting and its sites differ ({said}); let them agree (`agree` in the recipe)"]
    (value,) = values
    if value not in settings:
        return "", [f"{group}: no setting is {value}; allow its sites {', '.join(settings)}"]
    return settings[value], []


def _of(layers: list[int]) -> str:
    return f"layer {_some(map(str, layers))}: " if layers else ""


def _some(names: Iterable[str], most: int = 6) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
