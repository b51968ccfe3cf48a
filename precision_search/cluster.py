"""Cluster: auditions asked of the machines of a Ray cluster, which need none of this machine's files and may be lost.

What an audition needs (weights, clips, calibration, moments, trained weights) is put into the cluster's object store
once; Ray fetches it once a node. A task is a method's name, policies or schemes, and numbers; sound that it needs goes
by the hash of its content. A worker that is lost takes nothing with it but what it had in work, which another does.
"""

import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from precision_search.auditions import Auditions
from precision_search.bundle import unpack
from precision_search.nodes import Asked, Hand, Node, Turn
from precision_search.pools import Made, Task, WorkerError, kernel_threads
from precision_search.remote import RemoteWorker, differences, first_digest, questions
from precision_search.store import Store

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import ray
    from ray._private.services import get_ray_address_from_environment  # what address="auto" finds
    from ray.exceptions import RayError, RaySystemError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as absent:
    raise WorkerError(
        f"--workers ray needs Ray, and it is not there ({absent}): pip install 'precision-search[cluster]'"
    ) from absent

WORKER_BYTES = 900_000_000
"""Memory that a worker takes, with the renders that it keeps."""
CLIENT_PORT = 10001
CONNECT_SECONDS = 10.0
LOOK_SECONDS = 3.0
"""Between looks for nodes that have come or gone."""
RETURN_SECONDS = 15.0
"""How long a node is waited for where none is left."""
BUSY_SECONDS = 30.0
"""After which it is said that the cluster's processors are taken by others."""
TRIES = 3
"""Workers that a task may lose, or a node for each that it holds, before it is given up."""
_GO_ON = "nothing measured is lost: the same command with --resume goes on, also with another --workers"


class Cluster:
    """Workers on every fit node of a Ray cluster, one a processor, as far as memory holds them."""

    def __init__(self, auditions: Auditions, where: str, say: Callable[[str], None]) -> None:
        """Connect, and begin to hire.

        Args:
            auditions: of this process, which workers are made after.
            where: `ray` for the cluster that this machine is part of, or ray://HOST:PORT.
            say: told in a line of nodes that are refused and workers that are lost.

        Raises:
            WorkerError: there is no such cluster, or it has no node with room for a worker.
        """
        self._say = say
        self._nodes: dict[str, Node] = {}
        self._unfit: dict[str, str] = {}
        self._idle: list[Hand] = []
        self._asked: dict[Any, Asked] = {}
        self._lost: Counter[str] = Counter()
        self._looked = -LOOK_SECONDS
        self._without: float | None = None
        self._busy: float | None = time.monotonic()
        connect(where)
        try:
            self._here, self._first = questions()(), first_digest(auditions)
            self._store = Store(ray.put, auditions)
            nodes = _nodes()
            if not any(node.room for node in nodes):
                raise WorkerError(
                    f"--workers {where}: none of the cluster's {len(nodes)} nodes has a processor and"
                    f" {WORKER_BYTES / 1e9:g} GB for a worker; add one by: ray start --address=HEAD:6379"
                )
            self._threads = kernel_threads(sum(node.room for node in nodes), auditions.setting)
            self._look()
        except BaseException:
            self.close()
            raise

    def each(self, method: str, tasks: Sequence[Task], made: Made | None = None) -> Iterator[Any]:
        """As `Pool` has it."""
        turn = Turn(method, tasks, made, deque(range(len(tasks))))
        for place in range(len(tasks)):
            while place not in turn.found:
                try:
                    self._step(turn)
                except (ConnectionError, RaySystemError) as error:
                    raise WorkerError(f"the cluster's head is lost ({error}); {_GO_ON}") from error
            yield turn.found.pop(place)

    def close(self) -> None:
        """End the workers, also in the middle of something, and leave the cluster as it was."""
        hands = {asked.hand for asked in self._asked.values() if asked.hand is not None}
        for hand in (*self._idle, *hands):
            _end(hand)
        self._idle, self._asked = [], {}
        _disconnect()

    def _step(self, turn: Turn) -> None:
        """Send what can be sent, wait a moment for answers, and hear them."""
        self._look()
        while turn.waiting and self._idle:
            self._send(turn, self._idle.pop(0), turn.waiting.popleft())
        if not self._asked:
            self._wait_for_nodes()
            return
        done, _ = ray.wait(list(self._asked), num_returns=1, timeout=1.0)
        if done:
            done, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        for reference in done:
            self._hear(reference, self._asked.pop(reference))
        self._tell()

    def _send(self, turn: Turn, hand: Hand, place: int) -> None:
        parcel = self._store.parcel(turn.tasks[place])
        reference = hand.actor.do.remote(turn.method, parcel.task, parcel.references, parcel.adapted)
        self._asked[reference] = Asked(hand.node, hand, turn, place)

    def _hear(self, reference: Any, asked: Asked) -> None:
        try:
            answer = ray.get(reference)
        except RayError:
            self._lose(asked)
            return
        if asked.hand is None:
            found = differences(self._here, answer)
            if found:
                self._refuse(asked.node, "; ".join(found))
            else:
                for _ in range(asked.node.room):
                    self._hire(asked.node)
            return
        result, error = unpack(answer)
        if asked.turn is None:
            if error is not None:
                raise WorkerError(f"{asked.node.address}: a worker could not begin: {error}") from error
            if result == self._first:
                self._idle.append(asked.hand)
                self._without = self._busy = None
                if not asked.node.ready:
                    asked.node.ready = True
                    self._say(f"{asked.node.address} takes part with {_workers(asked.node.room)}")
            else:
                self._refuse(asked.node, "its processor gives other last bits of the first clip than this machine's")
                _end(asked.hand)
            return
        self._idle.append(asked.hand)
        if error is not None:
            raise error
        asked.turn.found[asked.place] = result
        if asked.turn.made is not None:
            asked.turn.made(asked.place, result)

    def _lose(self, asked: Asked) -> None:
        """Give what was in work to others, and hire anew where the node is still there."""
        node = asked.node
        node.losses += 1
        if asked.hand is not None:
            _end(asked.hand)  # it may only have been cut off
        if asked.turn is not None:
            asked.turn.waiting.appendleft(asked.place)
            asked.turn.losses[asked.place] += 1
            self._lost[node.address] += 1
            if asked.turn.losses[asked.place] > TRIES:
                raise WorkerError(
                    f"one task ({asked.turn.method}) lost {TRIES + 1} workers (out of memory, most often); {_GO_ON}"
                )
        # Whether the node's others are there is not known before they are asked.
        for hand in [hand for hand in self._idle if hand.node is node]:
            self._idle.remove(hand)
            self._asked[hand.actor.begin.remote()] = Asked(node, hand)
        self._look(at_once=True)
        if node.id in self._nodes and node.losses <= TRIES * node.room:
            if asked.hand is None:
                self._question(node)
            else:
                self._hire(node)

    def _look(self, *, at_once: bool = False) -> None:
        """See which nodes have come and gone."""
        if not at_once and time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        nodes = {node.id: node for node in _nodes()}
        for gone in self._nodes.keys() - nodes.keys():
            node = self._nodes.pop(gone)
            self._say(f"{node.address} is gone from the cluster")
            self._idle = [hand for hand in self._idle if hand.node is not node]
        for node in nodes.values():
            if node.id not in self._nodes and node.room:
                self._nodes[node.id] = node
                self._question(node)
        if self._busy is not None and time.monotonic() - self._busy > BUSY_SECONDS:
            self._busy = None
            self._say("waiting for a processor of the cluster; others use them all, or its nodes are slow to begin")

    def _question(self, node: Node) -> None:
        asking = ray.remote(questions()).options(num_cpus=0, max_retries=0, scheduling_strategy=_on(node))
        self._asked[asking.remote()] = Asked(node)

    def _hire(self, node: Node) -> None:
        options = {"num_cpus": 1, "memory": WORKER_BYTES, "max_restarts": 0, "scheduling_strategy": _on(node)}
        threads = min(self._threads, node.room)
        made = ray.remote(RemoteWorker).options(**options)
        actor: Any = made.remote(ray.get, self._store.content, self._store.moments, threads)
        self._asked[actor.begin.remote()] = Asked(node, Hand(node, actor))

    def _refuse(self, node: Node, why: str) -> None:
        """Let a node's workers go: it would give other results."""
        if node.id in self._unfit:
            return
        self._unfit[node.id] = f"{node.address} is not used: {why}"
        self._say(self._unfit[node.id])

    def _tell(self) -> None:
        """Say which workers were lost since it was last said."""
        for where, count in self._lost.items():
            left = len(self._idle) + sum(asked.turn is not None for asked in self._asked.values())
            others = f"what was in work there is done by the {left} left" if left else "no other is ready"
            self._say(f"lost {_workers(count)} on {where}; {others}")
        self._lost.clear()

    def _wait_for_nodes(self) -> None:
        """Wait a while for a node where none is left."""
        self._tell()
        if self._unfit.keys() >= self._nodes.keys() and self._unfit:
            raise WorkerError("no node of the cluster is fit\n  " + "\n  ".join(self._unfit.values()))
        now = time.monotonic()
        if self._without is None:
            self._without = now
            self._say(f"no worker is left; waiting {RETURN_SECONDS:g} s for a node")
        if now - self._without > RETURN_SECONDS:
            raise WorkerError(f"no worker of the cluster is left; {_GO_ON}")
        time.sleep(0.2)


_ours = False
"""Whether the connection of this process is to be ended with the workers."""


def connect(where: str) -> None:
    """Connect to a cluster, where this process is connected to none.

    Raises:
        WorkerError: there is none, or it has another Python or Ray; the message says what to do.
    """
    global _ours
    if ray.is_initialized():
        return
    try:
        at = get_ray_address_from_environment("auto", None) if where == "ray" else where
        # Ray itself tries for minutes where nothing answers, as after a cluster that was not stopped but killed.
        parts = urlsplit(at if "://" in at else f"//{at}")
        socket.create_connection((parts.hostname or "", parts.port or CLIENT_PORT), CONNECT_SECONDS).close()
        with suppress(ConnectionError):  # a busy head may answer a client too late the first time
            ray.init(at, log_to_driver=False, logging_level=logging.ERROR)
        if not ray.is_initialized():
            ray.init(at, log_to_driver=False, logging_level=logging.ERROR)
    except OSError as error:
        started = (
            "start one by `ray start --head`, have other machines join it by `ray start --address=HEAD:6379`, or name"
            " one by --workers ray://HEAD:10001"
            if where == "ray"
            else "its head must have been started by `ray start --head --ray-client-server-port=PORT`"
        )
        why = error.strerror or str(error).partition(". Please")[0]
        raise WorkerError(f"--workers {where}: no Ray cluster answers ({why}); {started}") from error
    except RuntimeError as error:  # other versions of Ray or Python
        raise WorkerError(f"--workers {where}: {error}") from error
    _ours = True


def _disconnect() -> None:
    global _ours
    if _ours:
        ray.shutdown()
    _ours = False


def _nodes() -> list[Node]:
    """The nodes that are there."""
    found = []
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            resources = node["Resources"]
            room = min(int(resources.get("CPU", 0)), int(resources.get("memory", 0) // WORKER_BYTES))
            found.append(Node(node["NodeID"], node["NodeManagerAddress"], room))
    return found


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _end(hand: Hand) -> None:
    with suppress(RayError, ConnectionError):
        ray.kill(hand.actor)


def _on(node: Node) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node.id, soft=False)
