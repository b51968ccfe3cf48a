"""Hold finished policies of the voices of the package against the clips that neither search nor repair has heard.

`python benchmarks/unseen_clips.py STUDY...` renders, under each study's policy, the clips of the package beyond the
recipe's search and held-back ones, in the exact arithmetic where the target has one, and prints every gate.
"""

import sys
from dataclasses import replace
from pathlib import Path

from precision_search.jury import hear
from precision_search.loading import load_model
from precision_search.progress import Progress
from precision_search.results import read_policy
from precision_search.run import calibrated, moments_of
from precision_search.wire import make_setting, read_recipe
from precision_search.workers import Workers


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        setting = make_setting(read_recipe(str(folder / "recipe.yaml"), ()))
        used = len(setting.search_clips) + len(setting.held_back_clips)
        setting = replace(setting, held_back_clips=load_model(setting.recipe)[1][used:])
        policy = read_policy(setting, folder / "policy.yaml")
        quiet = Progress(quiet=True)
        with Workers(setting, calibrated(setting, quiet), 1, moments_of(setting, quiet), folder) as crew:
            rendered = None
            if setting.backend.exact is not None:
                rendered = list(crew.render_exactly(policy, [None] * len(setting.held_back_clips)))
            heard = hear(setting, crew, policy, "held_back", whole=True, rendered=rendered)
        print(
            f"{folder}: {'every gate kept' if heard.kept else 'BROKEN'} on {len(setting.held_back_clips)} unseen clips"
        )
        for verdict in heard.verdicts:
            print(
                f"  {verdict.gate.metric:30} {verdict.gate.over:12} {verdict.value:10.4g}  margin {verdict.margin:.4g}"
            )


if __name__ == "__main__":
    main()
