"""Tiny twins: each architecture of transformers from a small configuration with seeded random weights.

`python -m voice.hf.twins NAME FOLDER` writes one, as `save_pretrained` does, with safetensors. They say nothing that
anyone understands: they hold every operation of the real ones, and are loaded by the same code.
"""

import argparse
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

TWINS: Mapping[str, str] = MappingProxyType(
    {
        # name of the twin -> `module:function` under voice.hf.tiny; function(folder: Path) -> None writes the model.
    }
)


def build(name: str, folder: Path) -> Path:
    """Write a twin to a folder, and give the folder.

    Raises:
        KeyError: no twin of that name.
    """
    module, _, function = TWINS[name].partition(":")
    write: Callable[[Path], None] = getattr(import_module(f"voice.hf.tiny.{module}"), function)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)
    return folder


def main() -> None:
    """Write the twin that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(TWINS))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    print(build(arguments.name, arguments.folder))


if __name__ == "__main__":
    main()
