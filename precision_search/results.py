"""Results: what a finished run leaves in its study folder beside the log."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from audio_eval.audio import write_wav
from audio_eval.suite import METRICS
from backends.emulation.adaptation import adapted_policy
from backends.resources import EFFECTIVE_BITS, limited_resource, typecast_summary
from calibrate.adapted import adapted_file
from precision.candidate import numbers
from precision.policy import Policy
from precision.shares import shares
from precision.study import Study, evaluation_key, write_atomic
from precision_search.adaptation import told
from precision_search.agreement import agreement
from precision_search.costing import cost_block
from precision_search.judged import judged
from precision_search.problem import meter_of
from precision_search.refuted import Refuted
from precision_search.run import Found
from precision_search.searching import UNITS
from precision_search.setting import Setting
from precision_search.wire import study_header

PACKAGES = ("precision-search", "torch", "numpy", "numba", "scipy", "librosa", "pesq", "pystoi", "soxr")


def write_results(setting: Setting, study: Study, found: Found, seconds: float) -> dict[str, Any]:
    """Write policy, tables, samples and summary; give the summary."""
    folder = study.folder
    write_atomic(folder / "recipe.yaml", setting.recipe.to_yaml())
    write_atomic(folder / "policy.yaml", policy_text(setting, found.policy))
    write_atomic(folder / "sites.json", _json(_sites(setting)))
    write_atomic(folder / "damage.json", _json(_damage(setting, study, found)))
    write_atomic(folder / "front.json", _json(found.front))
    _write_samples(setting, found, folder / "samples")
    summary = _summary(setting, study, found, seconds)
    write_atomic(folder / "summary.json", _json(summary))
    return summary


def policy_text(setting: Setting, policy: Policy) -> str:
    """The policy as YAML: no date, no duration, so that the same policy is the same file."""
    names = {scheme.name for scheme in policy.values()}
    used = {scheme.name: scheme.to_dict() for scheme in setting.recipe.schemes if scheme.name in names}
    adapted = {site: scheme.adapted for site, scheme in policy.schemes if scheme.adapted is not None}
    for scheme in used.values():
        del scheme["name"]
    data = {
        "recipe": setting.recipe.name,
        "recipe_digest": setting.recipe.digest,
        "model": setting.voice.name,
        "device": setting.device.name,
        "policy_digest": policy.digest,
        "schemes": used,
        "sites": {site: scheme.name for site, scheme in policy.schemes},
    }
    if adapted:
        weights = next(iter(adapted.values()))
        data["adapted"] = {"weights": weights, "file": adapted_file(weights), "sites": list(adapted)}
    return yaml.safe_dump(data, sort_keys=False, width=120, default_flow_style=None)


def read_policy(setting: Setting, path: Path) -> Policy:
    """Read a policy of this setting's recipe; ValueError naming every site and scheme that does not fit."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    named = data.get("sites") if isinstance(data, dict) else None
    if not isinstance(named, dict):
        raise ValueError(f"{path}: a policy file has a mapping of `sites` to schemes")
    known = {scheme.name: scheme for scheme in setting.recipe.schemes}
    sites = [site.name for site in setting.sites]
    mistakes = [f"{site}: the model has no such site" for site in named if site not in sites]
    mistakes += [f"{site}: has no scheme" for site in sites if site not in named]
    mistakes += [
        f"{site}: {scheme!r} is no scheme of the recipe, which has {', '.join(known)}"
        for site, scheme in named.items()
        if scheme not in known
    ]
    mistakes += [
        f"{site}: {setting.device.name} refuses {scheme}: {setting.refused[site, scheme]}"
        for site, scheme in named.items()
        if (site, scheme) in setting.refused
    ]
    trained = _trained_sites(data.get("adapted"))
    mistakes += [f"{site}: is adapted and has no scheme" for site in trained if site not in named]
    if mistakes:
        raise ValueError(f"{path}: {len(mistakes)} mistakes\n  " + "\n  ".join(mistakes))
    policy = Policy(tuple((site, known[named[site]]) for site in sites))
    return (
        adapted_policy(policy, str(data["adapted"].get("weights")), {s: named[s] for s in trained})
        if trained
        else policy
    )


def _trained_sites(entry: object) -> list[str]:
    sites = entry.get("sites") if isinstance(entry, dict) else None
    return [str(site) for site in sites] if isinstance(sites, list) else []


def _json(data: object) -> str:
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _sites(setting: Setting) -> list[dict[str, Any]]:
    return [
        {
            **site.described(),
            "rows_per_second": site.rows_per_second,
            "macs_per_second": site.macs_per_second,
            "fed_by": site.fed_by,
            "group": site.group,
        }
        for site in setting.sites
    ]


def _damage(setting: Setting, study: Study, found: Found) -> dict[str, Any]:
    settled = {record["key"]: record.get("settled") for record in study.records("damage")}
    problem = found.posed.problem
    model = meter_of(setting).model
    rows = []
    for index, site in enumerate(setting.sites):
        options = []
        for scheme in setting.space[site.name]:
            refused = setting.refused.get((site.name, scheme.name))
            column = problem.options[index].index(scheme.name)
            amplitudes = zip(problem.metrics, problem.damage[:, index, column], strict=True)
            damage = {metric: METRICS[metric].of_amplitude(amplitude) for metric, amplitude in amplitudes}
            cost = None if refused else model.site_cost(site, scheme)
            options.append(
                {
                    "scheme": scheme.name,
                    "refused": refused,
                    "damage": {} if refused else numbers(damage),
                    "settled": settled.get(evaluation_key(site.name, scheme)),
                    "seconds": cost.seconds if cost else None,
                    "evidence": cost.evidence if cost else None,
                }
            )
        rows.append(
            {
                "name": site.name,
                "op": site.op,
                "macs_per_second": site.macs_per_second,
                "weight_elements": site.weight_elements,
                "options": options,
            }
        )
    chosen = {site: scheme.name for site, scheme in found.policy.schemes}
    return {"metrics": list(problem.metrics), "sites": rows, "chosen": chosen}


def _write_samples(setting: Setting, found: Found, folder: Path) -> None:
    rate = setting.voice.sample_rate_hz
    if setting.first.waveform is None:
        return
    for kind in ("reference", "candidate"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for clip, reference, candidate in zip(setting.held_back_clips, found.references, found.rendered, strict=True):
        write_wav(folder / "reference" / f"{clip.name}.wav", reference.signal, rate)
        path = folder / "candidate" / f"{clip.name}.wav"
        if np.isfinite(candidate.signal).all():
            write_wav(path, candidate.signal, rate)
        else:  # no sound file holds NaN; the report names the clip as one that cannot be heard
            path.unlink(missing_ok=True)


def _summary(setting: Setting, study: Study, found: Found, seconds: float) -> dict[str, Any]:
    recipe = setting.recipe
    part = shares(
        setting.sites,
        found.policy,
        macs_per_second=setting.discovery.total_macs_per_second,
        parameters=setting.parameters,
    )
    kept = found.heard.kept and found.outcome.best is not None
    searched = setting.backend.arithmetic.name
    differing = found.fast_snr_db
    return {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "model": setting.voice.name,
        "device": setting.device.name,
        "device_title": setting.device.title,
        "backend": setting.backend.name,
        "arithmetic": found.exact or searched,
        "search_arithmetic": searched,
        "exact": found.exact is not None,
        "agreement": agreement(searched, found.exact, differing) if found.exact and differing else None,
        "verdict": "kept" if kept else "broken",
        "message": _message(found, recipe.search.minimize),
        "policy_digest": found.policy.digest,
        "lofi_mac_share": part.lofi_macs,
        "bfp8_weight_share": part.bfp8_weights,
        "fp8_mac_share": part.fp8_macs,
        **judged(setting, found),
        "evaluations": found.evaluations,
        "repairs": found.repairs,
        "exact_repairs": found.exact_repairs,
        "one_optimal": found.refuted is not None,
        "remeasured": list(found.outcome.remeasured),
        "stopped": found.outcome.reason,
        "seconds": round(seconds, 1),
        "sites": len(setting.sites),
        "covered_mac_share": setting.discovery.covered_share,
        "outside": [{"module": path, "mac_share": share} for path, share in setting.discovery.uncovered],
        "adaptation": None if found.trained is None else told(found.trained.adapted),
        "schemes": {scheme.name: scheme.to_dict() for scheme in recipe.schemes},
        "protected": dict(setting.protected),
        "left_high": _left_high(setting, found),
        "target": _target(setting, found),
        "typecasts": typecast_summary(meter_of(setting).model, setting.sites, found.policy),
        "against": f"{recipe.cost.against.device} in {recipe.cost_scheme.name}",
        "cost": cost_block(setting, found.policy),
        "clips": {"search": len(setting.search_clips), "held_back": len(setting.held_back_clips)},
        "sound": setting.first.waveform is not None,
        "seed": recipe.search.seed,
        "versions": {"python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES},
        "digests": {key: value for key, value in study_header(setting).items() if key in ("weights", "clips", "code")},
    }


def _message(found: Found, minimized: str) -> str:
    """What the search says of itself, and what the clips held back say against it."""
    form, factor = UNITS[minimized]
    said = found.outcome.told(lambda cost: form.format(cost * factor))
    if found.outcome.best is None or found.heard.kept:
        return said
    if not found.outcome.best.evaluation.kept:  # the best audio that there is
        return f"{said} on the search's clips"
    last = "in exact arithmetic " if found.exact and found.heard_fast.kept else ""
    return (
        f"{said} on the search's clips; on those held back {last}the gates break,"
        f" {found.repairs} repairs notwithstanding"
    )


def _left_high(setting: Setting, found: Found) -> list[dict[str, Any]]:
    """Of every site that is protected or has a cheaper scheme than its own: why it is left so high."""
    refuted: dict[str, list[Refuted]] = {}
    for entry in found.refuted or ():
        for name in entry.sites:
            refuted.setdefault(name, []).append(entry)
    left: list[dict[str, Any]] = []
    for name, scheme in found.policy.schemes:
        if name in setting.protected:
            left.append({"site": name, "scheme": scheme.name, "why": setting.protected[name], "refuted": []})
        elif name in refuted:
            entries = refuted[name]
            why = "; ".join(entry.sentence for entry in entries)
            shared = [other for other in entries[0].sites if other != name]
            why += f" (together with {', '.join(shared)}, which compute as one)" if shared else ""
            told = [entry.to_dict() for entry in entries]
            left.append({"site": name, "scheme": scheme.name, "why": why, "refuted": told})
    return left


def _target(setting: Setting, found: Found) -> dict[str, Any]:
    """What was asked of the search, and what the policy takes of each thing that was limited."""
    wanted = setting.recipe.search
    meter = meter_of(setting)
    baseline = Policy.uniform([site.name for site in setting.sites], setting.recipe.baseline)
    within = []
    for name, asked in wanted.within.items():
        resource = limited_resource(name)
        whole = meter.weights if name == EFFECTIVE_BITS else meter.policy_usage(baseline, resource)
        within.append({"what": name, "asked": asked, "taken": meter.policy_usage(found.policy, resource) / whole})
    return {"goal": wanted.goal, "minimize": wanted.minimize, "method": wanted.method, "within": within}
