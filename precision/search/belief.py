"""Belief: how likely a choice is to keep the gates, by the damages of single sites and all that was evaluated."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr

from precision.search.learned import Features, Process
from precision.search.outcome import Evaluation, Trial
from precision.search.problem import Problem
from precision.search.table import Selections, Table
from precision.search.unit import Array

_LEVELS = 6.0
"""Logarithms of power beyond which no more is told apart: a metric far under its threshold has noise of its own."""
_PLAIN = 1e-9
_FREEDOM = 3.0
"""Of Student's distribution: deviations are learned from few trials, and interferences have long tails."""


@dataclass(frozen=True, eq=False)
class _Gate:
    """A metric that adds, under its budget."""

    row: int
    name: str
    budget: float
    process: Process


class Belief:
    """What is believed after some trials; made anew after each."""

    def __init__(self, table: Table, budgets: Mapping[str, float], trials: Sequence[Trial]) -> None:
        """Learn from trials.

        Args:
            table: of the problem whose damages are single sites' measurements.
            budgets: threshold of each metric that adds; those that are not finite and above 0 teach nothing.
            trials: what was evaluated.
        """
        self.table = table
        self.count = len(trials)
        self._budgets = budgets
        self._tried = table.selections([trial.choice for trial in trials])
        self._gates = []
        for row, name in enumerate(table.problem.metrics):
            if 0.0 < budgets.get(name, math.inf) < math.inf:
                self._gates.append(self._gate(row, name, budgets[name], trials))
        self._other = self._others(trials)

    def chances(self, selections: Selections, excess: float = 0.0) -> Array:
        """[selection] the probability that every gate's relative excess is at most `excess`."""
        found = np.ones(len(selections))
        for gate in self._gates:
            mean, deviation = self.margin(gate, selections)
            found *= stdtr(_FREEDOM, (2.0 * math.log1p(max(excess, -0.999)) - mean) / deviation)
        if self._other is not None:
            process, scale = self._other
            mean, deviation = process.predict(self._weighed(selections))
            found *= stdtr(_FREEDOM, (excess / scale - mean) / deviation)
        return found

    def margin(self, gate: _Gate, selections: Selections) -> tuple[Array, Array]:
        """[selection] mean and deviation of the logarithm of a metric's power by that of its threshold."""
        features, level = self._features(gate.row, gate.budget, selections)
        mean, deviation = gate.process.predict(features)
        return mean + level, deviation

    def believed(self, selections: Selections) -> dict[str, float]:
        """Of one selection [1, unit], the mean logarithm of each metric's power by that of its threshold."""
        return {gate.name: float(self.margin(gate, selections)[0][0]) for gate in self._gates}

    def corrected(self) -> Problem:
        """The problem with the powers that are believed."""
        problem = self.table.problem
        damage = np.array(problem.damage)
        width = self.table.usable.shape[1]
        for gate in self._gates:
            common, errors = gate.process.corrections()
            for index, unit in enumerate(problem.units):
                for option, pick in enumerate(unit.picks):
                    factor = math.exp(0.5 * (common + float(errors[index * width + option])))
                    for site, place in zip(unit.sites, pick, strict=True):
                        damage[gate.row, site, place] = problem.damage[gate.row, site, place] * factor
        return replace(problem, damage=damage)

    def slackened(self, selections: Selections, deviations: float) -> dict[str, float]:
        """The budgets, larger by so many of their metrics' deviations at the selections."""
        found = dict(self._budgets)
        for gate in self._gates:
            _, deviation = self.margin(gate, selections)
            found[gate.name] = gate.budget * math.exp(0.5 * deviations * float(np.median(deviation)))
        return found

    def _gate(self, row: int, name: str, budget: float, trials: Sequence[Trial]) -> _Gate:
        features, level = self._features(row, budget, self._tried)
        ratios = np.array([trial.evaluation.ratio.get(name, math.nan) for trial in trials], dtype=np.float64)
        known = np.flatnonzero(np.isfinite(ratios) & (ratios > 0.0) & (features.share.sum(axis=1) > 0.5))
        values = 2.0 * np.log(ratios[known]) - level[known]
        return _Gate(row, name, budget, Process(features[known], values))

    def _features(self, row: int, budget: float, selections: Selections) -> tuple[Features, Array]:
        count, units = selections.shape
        power = self.table.power[row][np.arange(units)[None, :], selections]
        total = power.sum(axis=1)
        share = np.zeros((count, units, self.table.usable.shape[1]))
        safe = np.where(total > 0.0, total, 1.0)
        share[np.arange(count)[:, None], np.arange(units)[None, :], selections] = power / safe[:, None]
        level = np.log(np.maximum(total, 1e-300)) - 2.0 * math.log(budget)
        return Features(share.reshape(count, self.table.usable.size), np.clip(level, -_LEVELS, _LEVELS)), level

    def _weighed(self, selections: Selections) -> Features:
        """Features for gates whose metric does not add: half the sites alike, half by their share of the load."""
        parts = [self._features(gate.row, gate.budget, selections) for gate in self._gates]
        share = np.mean([features.share for features, _ in parts], axis=0)
        alike = np.zeros((len(selections), *self.table.usable.shape))
        units = selections.shape[1]
        alike[np.arange(len(selections))[:, None], np.arange(units)[None, :], selections] = 1.0 / units
        level = np.max([features.level for features, _ in parts], axis=0)
        return Features(0.5 * share + 0.5 * alike.reshape(len(selections), self.table.usable.size), level)

    def _others(self, trials: Sequence[Trial]) -> tuple[Process, float] | None:
        """Learn the excess of the gates that do not add, where one of them has decided."""
        if not self._gates:
            return None
        seen = [_hidden(trial.evaluation) for trial in trials]
        shown = np.array([value for value, exact in seen if exact])
        if not shown.size:
            return None
        scale = max(float(np.abs(shown).max()), _PLAIN)
        places = np.array([place for place, (value, _) in enumerate(seen) if math.isfinite(value)])
        values = np.array([seen[place][0] / scale for place in places])
        exact = np.array([seen[place][1] for place in places])
        features = self._weighed(self._tried)
        process = Process(features[places[exact]], values[exact], _OTHER)
        if exact.all():
            return process, scale
        # What is known to be at most a value is taken as believed, or as that value where more is believed.
        guess, _ = process.predict(features[places])
        values = np.where(exact, values, np.minimum(values, guess))
        return Process(features[places], values, process.deviations), scale


_OTHER = (1.0, 0.5, 1.0, 0.5, 0.1)


def _hidden(evaluation: Evaluation) -> tuple[float, bool]:
    """The worst excess of the gates that do not add, and whether that is it or only its upper bound; inf: unknown."""
    ratios = [value for value in evaluation.ratio.values() if math.isfinite(value)]
    known = max((max(value, value * value) for value in ratios), default=0.0) - 1.0
    worst = evaluation.worst
    if math.isnan(worst):
        return (1.0, True) if not evaluation.kept and known <= 0.0 else (math.inf, False)
    if worst > known + _PLAIN:
        return worst, True
    return (worst, False) if evaluation.kept else (math.inf, False)
