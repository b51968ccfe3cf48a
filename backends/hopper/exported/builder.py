"""Builder: a model made an engine, with what was heard as the only types: TF32 is off, and nothing else is allowed for.

TensorRT's module and logger are given, so that one file imports it. Names are those of TensorRT 11.4's bindings.
"""

import contextlib
import hashlib
import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Profile = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Smallest, usual and largest shape of an input."""
Progress = Callable[[str, int, int], None]
"""Called with a phase of the build, how many of its steps are done, and of how many."""


class BuildFailedError(RuntimeError):
    """TensorRT does not build the engine; the message has all that it said."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How an engine is built; the same settings, model, TensorRT and card are meant to give the same arithmetic."""

    tf32: bool = False
    """Whether float32 products may round operands to TF32; what a search heard was float32."""
    refit: bool = False
    """Whether scales can be changed in the engine, which keeps TensorRT from folding them."""
    level: int = 3
    """TensorRT's optimization level, 0 to 5: how long it looks for faster kernels."""


def trtexec(model: str, plan: str, settings: Settings, profile: Mapping[str, Profile]) -> list[str]:
    """The command that does the same, by TensorRT's own tool."""
    flags = [f"--onnx={model}", f"--saveEngine={plan}", *([] if settings.tf32 else ["--noTF32"])]
    flags += [f"--builderOptimizationLevel={settings.level}", "--profilingVerbosity=detailed"]
    for index, size in enumerate(("min", "opt", "max")):
        if profile:
            shapes = (f"{name}:{'x'.join(map(str, sizes[index]))}" for name, sizes in profile.items())
            flags.append(f"--{size}Shapes={','.join(shapes)}")
    return ["trtexec", *flags, *(["--refit"] if settings.refit else [])]


def key(
    digest: str, version: str, card: str, settings: Settings, profile: Mapping[str, Profile], marked: Sequence[str] = ()
) -> str:
    """Name of an engine in a cache: 16 hexadecimal digits of all that it hangs on.

    Args:
        digest: of the model.
        version: of TensorRT; another one's engine does not load.
        card: its name and compute capability, as `gpu.Gpu.slug`; kernels are chosen by timing them on it.
        settings: of the build.
        profile: of the build.
        marked: weights that can be refitted.
    """
    held = [digest, version, card, asdict(settings), sorted(profile.items()), sorted(marked)]
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:16]


def build(
    trt: Any,
    log: Any,
    model: Path,
    profile: Mapping[str, Profile],
    settings: Settings,
    *,
    timings: Path | None = None,
    marked: Sequence[str] = (),
    progress: Progress | None = None,
) -> bytes:
    """Build an engine; Ctrl-C ends it between two steps, and leaves nothing behind.

    Args:
        trt: TensorRT's module, `engine.library()`.
        log: `engine.journal()`.
        model: file of a strongly typed ONNX model; weights may be in files beside it.
        profile: of each input of which an axis varies.
        settings: of the build.
        timings: file of TensorRT's timing cache, read and brought up to date; one of another card or version is
            replaced. None keeps none.
        marked: initializers that can be refitted, where `settings.refit` says so.
        progress: told of every step.

    Returns:
        The serialized engine.

    Raises:
        BuildFailedError: the parser does not take nodes of the model (all are named), or TensorRT does not build it.
        KeyboardInterrupt: Ctrl-C.
    """
    mark = len(log.said)
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # pybind's, where TensorRT gives nothing
        raise BuildFailedError(f"TensorRT {trt.__version__} does not start: {_said(log, mark)}") from error
    # The flag says what is always so in TensorRT 11, and makes 10 do the same.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(model)):
        raise BuildFailedError(_unparsed(model, [parser.get_error(index) for index in range(parser.num_errors)]))
    config = builder.create_builder_config()
    (config.set_flag if settings.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    config.builder_optimization_level = settings.level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the inspector has names only
    if settings.refit:
        config.set_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
        if unknown := [name for name in marked if not network.mark_weights_refittable(name)]:
            raise BuildFailedError(f"TensorRT knows no weights {', '.join(unknown)} to refit: {_said(log, mark)}")
    _add_profile(builder, config, profile, log)
    cache = _timing_cache(config, timings)
    with _interruptible() as interrupted:
        monitor = _monitor(trt, interrupted, progress)
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    if interrupted():
        raise KeyboardInterrupt
    if plan is None:
        raise BuildFailedError(f"TensorRT {trt.__version__} does not build {model.name}: {_said(log, mark)}")
    if timings is not None:
        write_whole(timings, bytes(cache.serialize()))
    return bytes(plan)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or, whatever happens, as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _add_profile(builder: Any, config: Any, profile: Mapping[str, Profile], log: Any) -> None:
    if not profile:
        return
    mark, sizes = len(log.said), builder.create_optimization_profile()
    for name, (least, usual, most) in profile.items():
        sizes.set_shape(name, least, usual, most)
    if config.add_optimization_profile(sizes) < 0:
        raise BuildFailedError(f"TensorRT does not take the sizes {dict(profile)}: {_said(log, mark)}")


def _timing_cache(config: Any, timings: Path | None) -> Any:
    data = timings.read_bytes() if timings is not None and timings.is_file() else b""
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):  # of another card or version: begin anew
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _monitor(trt: Any, interrupted: Callable[[], bool], progress: Progress | None) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """TensorRT calls it from threads of its own."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if progress is not None:
                progress(phase_name, step + 1, self.steps.get(phase_name, step + 1))
            return not interrupted()

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Give what tells whether Ctrl-C was hit, from whichever thread it is asked, and afterwards too.

    While TensorRT builds, Python's own handler does not run: the main thread is in TensorRT. What runs is the part that
    writes the signal's number to a file.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    (read, write), hit, ended = os.pipe(), threading.Event(), threading.Event()
    os.set_blocking(read, False)
    os.set_blocking(write, False)

    def interrupted() -> bool:
        if not ended.is_set():
            with contextlib.suppress(BlockingIOError):
                if signal.SIGINT in os.read(read, 64):
                    hit.set()
        return hit.is_set()

    handler = signal.signal(signal.SIGINT, lambda *_: hit.set())
    woken = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield interrupted
    finally:
        interrupted()
        ended.set()
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGINT, handler)
        os.close(read)
        os.close(write)


def _unparsed(model: Path, errors: Sequence[Any]) -> str:
    lines = [f"TensorRT's parser does not take {len(errors)} nodes of {model.name}:"]
    lines += [f"  {one.node_name() or 'the model'} ({one.node_operator() or '-'}): {one.desc()}" for one in errors]
    return "\n".join(dict.fromkeys(lines))


def _said(log: Any, mark: int) -> str:
    said = [text for kind, text in log.said[mark:] if kind == "error"]
    return "\n".join(dict.fromkeys(said)) or "it says no reason"
