"""Pages of the public Python modules: which they are; mkdocstrings fills in what their docstrings say."""

from collections.abc import Mapping

ROOMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "precision": (
        "Formats, schemes, policies, recipes and gates; no torch.",
        ("formats", "blocks", "policy", "site", "gates", "recipe", "schema", "candidate", "study"),
    ),
    "voice": (
        "Models and where they multiply.",
        ("model", "family", "sites", "torch_module", "noise"),
    ),
    "audio_eval": (
        "Metrics, their table, profiles of gates, statistics, and judging two folders of clips.",
        ("suite", "profiles", "judge", "clip", "audio", "statistics"),
    ),
    "calibrate": (
        "Ranges and second moments of activations.",
        ("calibration", "moments"),
    ),
    "backends": (
        "Cards, what they refuse, how they compute, and what that costs.",
        ("base", "devices", "cost", "money", "decoding", "speculation"),
    ),
    "precision_search": (
        "What ties the rooms together: the names of a recipe to their objects, and a study's files.",
        ("wire", "reading", "one_clip"),
    ),
}
"""Room -> what it holds, and its modules that are meant to be called."""


def pages() -> dict[str, str]:
    """A page a room."""
    return {f"{room}.md": _page(room, about, modules) for room, (about, modules) in ROOMS.items()}


def _page(room: str, about: str, modules: tuple[str, ...]) -> str:
    return "\n\n".join([f"# {room}", about, *(f"::: {room}.{module}" for module in modules)]) + "\n"
