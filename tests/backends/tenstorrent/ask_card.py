"""Runs models in a process of its own on a mock card, and says what ttnn made of each: `ask_card.py CASES ANSWERS`.

A case is the text of a model.py, its weights as shape, type and layout (on the host where it says so), and its state.
An answer is the refusal, or None; type, layout and shape of what was downloaded; bytes of a core's L1 at the peak.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import runtime
import ttnn


def zeros(shape, dtype, layout, device):
    kind = np.uint32 if dtype == "uint32" else np.float32
    return runtime.upload(np.zeros(shape, kind), dtype, layout, device)


def answer(case, device):
    model = types.ModuleType("model")
    exec(compile(case["text"], "model.py", "exec"), model.__dict__)
    seen = {}

    def download(tensor):
        seen["result"] = [runtime.NAMES[tensor.dtype], list(tensor.shape)]
        return np.zeros(tuple(tensor.shape), np.float32)

    model.runtime = types.SimpleNamespace(upload=runtime.upload, download=download)
    refusal, peaks = None, []
    # A normal capture checks what a card has room for, and only one that dispatches nothing sees all buffers.
    for mode in (ttnn.graph.RunMode.NORMAL, ttnn.graph.RunMode.NO_DISPATCH):
        weights = {
            name: zeros(shape, dtype, layout, None if on_host else device)
            for name, (shape, dtype, layout, on_host) in case["weights"].items()
        }
        inputs = {name: np.zeros(shape, np.float32) for name, shape in case["inputs"].items()}
        ttnn.graph.begin_graph_capture(mode)
        try:
            state = {name: runtime.upload(np.zeros(s), t, y, device) for name, (s, t, y) in model.STATE.items()}
            model.forward(device, weights, inputs, state)
        except (RuntimeError, TypeError) as error:
            refusal = runtime.reason(error)
        peaks.append(ttnn.graph.extract_resource_usage_per_core(ttnn.graph.end_graph_capture()).peak_total)
        if refusal is not None:
            break
    return {"refusal": refusal, "l1_bytes": peaks[-1], **seen}


def main():
    cases, answers = map(Path, sys.argv[1:])
    with runtime.opened() as device:
        found = []
        for case in json.loads(cases.read_text()):
            device.disable_and_clear_program_cache()
            found.append(answer(case, device))
    answers.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
