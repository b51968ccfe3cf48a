"""Store: what workers elsewhere need of this process, put once where they can fetch it, by its content."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from audio_eval.output import Output
from precision.policy import Policy, Scheme
from precision_search.auditions import Auditions
from precision_search.bundle import address, pack
from precision_search.pools import Task
from precision_search.remote import Held
from precision_search.sources import sources_of

HELD_OUTPUTS = 256
"""Renders kept to be scored again."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A task as it is sent: what is small, and references to the rest."""

    task: bytes
    references: dict[str, Any]
    adapted: dict[str, Any]


class Store:
    """References to what was put."""

    def __init__(self, put: Callable[[bytes], Any], auditions: Auditions) -> None:
        """Put the sources of a user's model, the setting and calibration, in one, and the moments of each site."""
        self._put, self._auditions = put, auditions
        sources = sources_of(auditions.setting.recipe.model)
        self.content = [put(pack(sources)), put(pack((auditions.setting, auditions.calibration)))]
        self.moments = {site: put(pack(moments)) for site, moments in auditions.moments.items()}
        self._adapted: dict[str, Any] = {}
        self._outputs: OrderedDict[str, Any] = OrderedDict()

    def parcel(self, task: Task) -> Parcel:
        """Make a task ready to be sent; sound and trained weights are put, once each.

        Raises:
            KeyError: a scheme names trained weights that are not there.
        """
        references, arguments = {}, []
        for part in task:
            if isinstance(part, Output):
                content = pack(part)
                held = Held(address(content))
                references[held.address] = self._hold(held.address, content)
                arguments.append(held)
            else:
                arguments.append(part)
        named = _weights_of(task)
        for weights in named - self._adapted.keys():
            assert self._auditions.adapted is not None
            self._adapted[weights] = self._put(pack(dict(self._auditions.adapted[weights])))
        return Parcel(pack(tuple(arguments)), references, {weights: self._adapted[weights] for weights in named})

    def _hold(self, where: str, content: bytes) -> Any:
        if where not in self._outputs:
            self._outputs[where] = self._put(content)
            if len(self._outputs) > HELD_OUTPUTS:
                self._outputs.popitem(last=False)
        self._outputs.move_to_end(where)
        return self._outputs[where]


def _weights_of(task: Task) -> set[str]:
    """Digests of the trained weights that the policies and schemes of a task name."""
    schemes = [part for part in task if isinstance(part, Scheme)]
    schemes += [scheme for part in task if isinstance(part, Policy) for scheme in part.values()]
    return {scheme.adapted for scheme in schemes if scheme.adapted is not None}
