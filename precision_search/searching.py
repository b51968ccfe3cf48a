"""Searching: a posed problem searched by the method of its recipe, every policy heard by the jury."""

from collections.abc import Callable
from functools import partial

from precision.search.driver import search
from precision.search.exhaustive import exhaustive, space_size
from precision.search.outcome import Evaluation, Outcome
from precision.search.outcome import Progress as SearchProgress
from precision.search.problem import Choice
from precision.search.sampled import sampled
from precision.search.warm import warm_starts
from precision_search.jury import Jury
from precision_search.problem import Posed
from precision_search.progress import Progress
from precision_search.setting import Setting

UNITS = {
    "seconds": ("{:.2f} us a second of audio", 1e6),
    "joules": ("{:.3f} mJ a second of audio", 1e3),
    "usd": ("{:.4f} USD a thousand hours", 3.6e6),
    "weight_bytes": ("{:.2f} MB of weights", 1e-6),
    "passes": ("{:.3f} passes a MAC", 1.0),
}
"""Of what is minimized: how a person reads it."""


def search_by_recipe(setting: Setting, posed: Posed, jury: Jury, progress: Progress) -> Outcome:
    """Search as the recipe says.

    Raises:
        SpaceError: too many policies to go through them all, or none within the limits.
        BudgetError: nothing is within the limits.
    """
    wanted, problem, limits = setting.recipe.search, posed.problem, posed.limits
    # The best audio is that of all gates; the cheapest that keeps them is done with at the first that breaks.
    whole = wanted.goal == "best_audio"
    evaluate: Callable[[Choice], Evaluation] = partial(jury.evaluate, problem=problem, split="search", whole=whole)
    form, factor = UNITS[wanted.minimize]

    def tell(state: SearchProgress) -> None:
        if state.best is None:
            progress.step("none kept yet")
            return
        audio = f", {state.best.evaluation.worst:+.1%} beyond its worst gate" if whole else ""
        progress.step(f"best {form.format(state.best.cost * factor)}{audio}")

    if wanted.method == "exhaustive":
        progress.begin("going through the whole space, policies at most", space_size(problem))
        return exhaustive(problem, evaluate, goal=wanted.goal, limits=limits, on_progress=tell)
    progress.begin("searching", wanted.evaluations)
    if wanted.method == "exact":
        return search(
            problem,
            jury.searching.budgets,
            evaluate,
            goal=wanted.goal,
            limits=limits,
            candidates=wanted.candidates,
            evaluations=wanted.evaluations,
            on_progress=tell,
            remeasure=partial(jury.remeasure, problem=problem),
        )
    return sampled(
        problem,
        evaluate,
        method=wanted.method,
        goal=wanted.goal,
        limits=limits,
        evaluations=wanted.evaluations,
        seed=wanted.seed,
        warm=warm_starts(problem, jury.searching.budgets, limits, max(1, wanted.evaluations // 4), wanted.goal),
        on_progress=tell,
    )
