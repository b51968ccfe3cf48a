"""Streamed against offline: chunk by chunk a policy says what it says of the whole clip, in its target's arithmetic.

`python benchmarks/streaming.py SOURCE ...` takes studies, or recipes (then the baseline is everywhere), and renders a
clip whole and in chunks of 80 ms: in fp32 by torch, and under the policy by the emulation of the study's backend. It
prints, by part of the output, the ratio of what is said to what differs, in dB, and the largest difference. Beside it
stands what the policy itself does to the part: chunks must change less.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from backends.hopper.emulated import Emulated
from backends.tenstorrent.simulate import Simulator
from backends.tolerance import snr_db
from precision_search import models, programs
from precision_search.lowering import Asked, HopperChoice, backend_of_study, choose, choose_hopper, refuse_refused
from precision_search.progress import Progress
from precision_search.sampled import Sampled

Parts = dict[str, NDArray[np.float32]]
CHUNK_MS = 80.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--policy", type=Path, help="a policy file, in place of the study's own")
    parser.add_argument("--clip", help="name of a clip; the shortest held back by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    broken = 0
    for source in arguments.sources:
        asked = Asked(source, arguments.policy, arguments.clip)
        hopper = backend_of_study(asked) == "hopper"
        chosen = choose_hopper(asked) if hopper else choose(asked)
        refuse_refused(chosen)
        print(f"{chosen.setting.voice.name} on {chosen.target}, {chosen.policy_source}, clip {chosen.clip.name}")
        fp32: list[Parts] = []
        lowered: list[Parts] = []
        for chunk_ms in (None, CHUNK_MS):
            if isinstance(chosen, HopperChoice):
                made: Sampled = models.make(
                    chosen, any_shape=False, chunk_ms=chunk_ms, ranges=None, progress=Progress()
                )
            else:
                made = programs.make(chosen, host=True, chunk_ms=chunk_ms, progress=Progress())
            fp32.append(made.parts_by(in_fp32(made)))
            lowered.append(made.parts_by(emulation(made)))
            stream = made.stream
        assert stream is not None
        broken += show(fp32, lowered, stream.facts)
    raise SystemExit(broken > 0)


def in_fp32(made: Sampled) -> Callable[..., dict[str, torch.Tensor]]:
    """The graph by torch, its states kept from run to run."""
    states: dict[str, torch.Tensor] = {}

    def run(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        outputs = made.graph.run(inputs, states=states or None)
        count = len(made.graph.parts)
        states.update(zip(made.graph.states, outputs[count:], strict=True))
        return dict(zip(made.graph.parts, outputs[:count], strict=True))

    return run


def emulation(made: Sampled) -> Callable[..., dict[str, torch.Tensor]]:
    """The lowered model in the arithmetic of its backend."""
    if isinstance(made, models.Model):
        return Emulated(made.graph, made.lowered.policy, made.measured, None, 0, lambda _: None).run
    assert isinstance(made, programs.Made)
    return Simulator(made.program).run


def show(fp32: list[Parts], lowered: list[Parts], facts: dict[str, object]) -> int:
    """Print a line a part, and give how many chunks changed more than the policy."""
    print(
        f"{'part':12} {'fp32: SNR dB':>13} {'largest':>9} {'policy: SNR dB':>15} {'largest':>9} {'the policy, dB':>15}"
    )
    broken = 0
    for part, whole in fp32[0].items():
        rows = []
        for once, again in (fp32, lowered):
            one, two = aligned(once[part], again[part], part, facts)
            rows.append((snr_db(torch.from_numpy(one), torch.from_numpy(two)), float(np.abs(one - two).max())))
        own = snr_db(torch.from_numpy(whole), torch.from_numpy(lowered[0][part]))
        late = rows[1][0] < own and not math.isinf(rows[1][0])
        broken += late
        cells = [f"{snr:13.1f} {largest:9.2g}" for snr, largest in rows]
        print(f"{part:12} {cells[0]} {cells[1]:>25} {own:15.1f}{'  MORE THAN THE POLICY' * late}")
    return broken


def aligned(
    whole: NDArray[np.float32], runs: NDArray[np.float32], part: str, facts: dict[str, object]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A part of the whole clip beside the same of its chunks, which begin late and may read more."""
    if part == "waveform":
        late = int(str(facts["latency_samples"]))
        runs = runs.reshape(-1)[late:]
        whole = whole.reshape(-1)
    else:
        runs = runs.reshape(-1, runs.shape[-1])
        # The prompt's rows have logits, too, and the row behind the last: what is said lies between.
        runs = runs[len(runs) - 1 - len(whole) : len(runs) - 1]
    count = min(len(whole), len(runs))
    return whole[:count], runs[:count]


if __name__ == "__main__":
    main()
