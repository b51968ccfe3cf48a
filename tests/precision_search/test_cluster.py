"""Workers on the machines of a cluster: the same policy, whatever is lost on the way."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from precision_search.main import main

pytest.importorskip("ray.cluster_utils", reason="needs the extra `cluster`", exc_type=ImportError)

SERVER = Path(__file__).with_name("ray_cluster.py")
LIMIT_SECONDS = 240
QUIET = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


class Nodes:
    """A cluster to lose nodes of."""

    def __init__(self, process: subprocess.Popen[str], head: str, door: str) -> None:
        self._process, self.head, self.door = process, head, door
        self.there: list[int] = []
        """Numbers of the nodes that are there; that of number N has the address 127.0.0.(3 + N)."""
        self._added = 0

    def keep(self, count: int) -> list[str]:
        """Have so many nodes, those that came last, and give their addresses."""
        while len(self.there) > count:
            self._tell(f"kill {self.there.pop(0)}")
        while len(self.there) < count:
            self._tell("add")
            self.there.append(self._added)
            self._added += 1
        return [f"127.0.0.{3 + number}" for number in self.there]

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(command, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "done\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """A head, whose start takes as long as a study, and no node."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, SERVER], stdin=pipe, stdout=pipe, text=True, env=os.environ | QUIET
    ) as process:
        try:
            assert process.stdout is not None
            yield Nodes(process, *process.stdout.readline().split())
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


class Run:
    """A run of the command, watched."""

    def __init__(self, recipe: Path, folder: Path, *more: str, head: str = "") -> None:
        command = [sys.executable, "-m", "precision_search", "run", str(recipe), "--out", str(folder), *more]
        self.log = folder / "study.jsonl"
        self.said: list[str] = []
        self._limit = time.monotonic() + LIMIT_SECONDS
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | QUIET | {"RAY_ADDRESS": head},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)  # each as it comes

    @property
    def lines(self) -> int:
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    def until_lines(self, count: int) -> None:
        self._until(lambda: self.lines >= count)

    def until_said(self, text: str) -> None:
        self._until(lambda: text in "".join(self.said))

    def _until(self, true) -> None:
        while not true():
            assert self.process.poll() is None, "".join(self.said)
            assert time.monotonic() < self._limit, "".join(self.said)
            time.sleep(0.02)

    def code(self) -> int:
        code = self.process.wait(max(self._limit - time.monotonic(), 1))
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@pytest.fixture(scope="module")
def alone(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "tiny"
    with pytest.raises(SystemExit) as ended:
        main(["run", str(made / "tiny.yaml"), "--out", str(folder), "--quiet", "--workers", "1"])
    assert not ended.value.code
    return folder


def damages(study: Path) -> dict[str, object]:
    log = [json.loads(line) for line in (study / "study.jsonl").read_text().splitlines()]
    found = [(line["key"], line["damage"]) for line in log if line["kind"] == "damage"]
    assert len(dict(found)) == len(found), "nothing is measured twice"
    return dict(found)


@pytest.mark.slow
def test_a_killed_node_and_ctrl_c_change_nothing_of_the_policy(alone, made, tmp_path, cluster):
    folder, (first, second) = tmp_path / "tiny", cluster.keep(2)
    stopped = Run(made / "tiny.yaml", folder, "--workers", "ray", head=cluster.head)
    stopped.until_lines(8)
    stopped.process.send_signal(signal.SIGINT)
    assert stopped.code() == 130
    assert "--resume" in stopped.said[-1]
    held = stopped.lines
    run = Run(made / "tiny.yaml", folder, "--workers", "ray", "--resume", head=cluster.head)
    for node in (first, second):
        run.until_said(f"{node} takes part with 1 worker")  # so the run that was stopped has let them go
    run.until_lines(held + 4)
    assert cluster.keep(1) == [second]
    assert run.code() == 0, "".join(run.said)
    assert any(line.startswith(f"lost 1 worker on {first}; what was in work there is done") for line in run.said)
    assert (folder / "policy.yaml").read_bytes() == (alone / "policy.yaml").read_bytes()
    assert damages(folder) == damages(alone), "to the last bit"


@pytest.mark.slow
def test_a_node_that_comes_back_is_used_and_without_any_the_run_is_gone_on_with_here(alone, made, tmp_path, cluster):
    folder = tmp_path / "tiny"
    cluster.keep(1)
    run = Run(made / "tiny.yaml", folder, "--workers", cluster.door)
    run.until_lines(6)
    cluster.keep(0)
    run.until_said("no worker is left; waiting")
    held = run.lines
    cluster.keep(1)
    run.until_lines(held + 6)
    cluster.keep(0)
    assert run.code() == 2
    assert "no worker of the cluster is left; nothing measured is lost" in run.said[-1]
    assert "--resume" in run.said[-1]
    held = run.log.read_bytes().rpartition(b"\n")[0]
    here = Run(made / "tiny.yaml", folder, "--workers", "1", "--resume")
    assert here.code() == 0, "".join(here.said)
    assert here.log.read_bytes().startswith(held)
    assert (folder / "policy.yaml").read_bytes() == (alone / "policy.yaml").read_bytes()
    assert damages(folder) == damages(alone)


@pytest.mark.parametrize(("where", "head"), [("ray", "127.0.0.1:1"), ("ray://127.0.0.1:1", "")])
def test_a_cluster_that_is_not_there_is_refused_before_a_study_is_begun(
    made, tmp_path, monkeypatch, capsys, where, head
):
    monkeypatch.setenv("RAY_ADDRESS", head)
    with pytest.raises(SystemExit) as ended:
        main(["run", str(made / "tiny.yaml"), "--out", str(tmp_path / "none"), "--workers", where])
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"--workers {where}: no Ray cluster answers (Connection refused)" in said
    assert "ray start --head" in said
    assert not (tmp_path / "none").exists()


def test_ray_is_imported_for_a_cluster_alone_and_its_absence_names_the_extra():
    script = """
import sys
import precision_search.main, precision_search.run
assert "ray" not in sys.modules
sys.modules["ray"] = None
from precision_search.workers import WorkerError, reach
try:
    reach("ray")
except WorkerError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'precision-search[cluster]'" in found.stdout


@pytest.mark.parametrize("where", ["", "many", "0", "-1", "ray:", "ray://", "ray://host:port", "raymond"])
def test_workers_that_are_none_are_refused(where, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", "tts_blackhole", f"--workers={where}"])
    assert ended.value.code == 2
    assert "--workers" in capsys.readouterr().err
