"""Sessions: what computes one run: ONNX Runtime on a CPU, an engine of TensorRT, or the one by way of the other.

Packages are imported where they are needed, so that one runtime is enough.
"""

import ctypes
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

# The file beside this one, here and in an export.
from runtime import Arrays, RuntimeFailure, Session, Stateful, Step  # type: ignore[import-not-found]

RUNTIMES = ("cpu", "tensorrt", "ort-tensorrt")


def opened(runtime: str, folder: Path, manifest: Mapping[str, Any], engine: Path | None, threads: int) -> Session:
    """What runs the model of a folder.

    Args:
        runtime: one of `RUNTIMES`.
        folder: of the export.
        manifest: its program.json.
        engine: file of an engine, which `tensorrt` reads; None: engine.plan in the folder.
        threads: of a CPU; 0: as many as there are cores.

    Raises:
        RuntimeFailure: a package, an engine or a card is not there; says what to do.
    """
    plan = folder / "engine.plan" if engine is None else engine
    if runtime == "tensorrt" and manifest.get("host") is None:
        return _Engine(plan, manifest)
    ort = _imported("onnxruntime", "onnxruntime-gpu")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Q/DQ stay what they are: operations that round, and no hint at integer kernels.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if runtime == "tensorrt":
        return _Hosted(
            _Engine(plan, manifest),
            _step(ort, str(folder / "host.onnx"), options, ["CPUExecutionProvider"]),
            manifest["host"]["takes"],
        )
    if runtime == "cpu":
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        onnx = _imported("onnx", "onnx")
        from widening import widened  # type: ignore[import-not-found]

        model = widened(onnx.load(folder / "model.onnx", load_external_data=False)).SerializeToString()
        return Stateful(manifest, _step(ort, model, options, ["CPUExecutionProvider"]))
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # the provider has no option for it, and fp32 means fp32
    # What the runtime optimizes before the provider sees it may fold FP8 weights into float32 ones.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    _preload(ort)
    providers = [("TensorrtExecutionProvider", _provider_options(folder, manifest)), "CUDAExecutionProvider"]
    step = _step(ort, str(folder / "model.onnx"), options, [*providers, "CPUExecutionProvider"])
    return Stateful(manifest, step)


def _preload(ort: Any) -> None:
    """Load the libraries of CUDA, cuDNN and TensorRT that pip brought, which the system does not look for."""
    with redirect_stdout(sys.stderr):
        ort.preload_dlls()  # it prints what it does not find
    found = importlib.util.find_spec("tensorrt_libs")
    for folder in [] if found is None else found.submodule_search_locations or []:
        for pattern in ("libnvinfer.so.*", "libnvinfer_plugin.so.*", "libnvonnxparser.so.*"):
            for library in Path(folder).glob(pattern):
                ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def _imported(module: str, package: str) -> Any:
    try:
        return __import__(module)
    except ImportError as error:
        raise RuntimeFailure(f"{error}; pip install {package} (requirements.txt has the version)") from error


def _step(ort: Any, model: str | bytes, options: Any, providers: list[Any]) -> Step:
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    needs = (
        ""
        if wanted.startswith("CPU")
        else "; it needs a card, its driver, and the TensorRT that this onnxruntime was"
        " built with (README.md); or take --runtime tensorrt, or cpu"
    )
    try:
        # Without enable_fallback=0 a provider that fails is printed about, and then replaced by the CPU.
        session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # its errors have no class of their own to name without it
        said = " ".join(str(error).split())
        raise RuntimeFailure(f"ONNX Runtime {ort.__version__}, {wanted}: {said}{needs}") from error
    if session.get_providers()[0] != wanted:
        raise RuntimeFailure(f"ONNX Runtime {ort.__version__} fell back from {wanted} to another provider{needs}")
    names = [value.name for value in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        try:
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))
        except Exception as error:
            raise RuntimeFailure(f"ONNX Runtime stopped: {error}") from error

    return run


def _provider_options(folder: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """No precision flag: the provider's network is strongly typed then, as the model says."""
    cache = str(folder / "ort_cache")
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": cache,
    }
    if manifest["axes"]:
        import facts  # type: ignore[import-not-found]  # the file beside this one, here and in an export

        profiles = facts.profile({spec["name"]: spec["shape"] for spec in manifest["inputs"]}, manifest["axes"])
        for index, which in enumerate(facts.SIZES):
            shapes = [f"{name}:{'x'.join(str(size) for size in sizes[index])}" for name, sizes in profiles.items()]
            options[f"trt_profile_{which}_shapes"] = ",".join(shapes)
    return options


class _Hosted:
    """A session that computes on the host what its engine cannot, before every run of it."""

    def __init__(self, engine: Session, host: Step, takes: Sequence[str]) -> None:
        self._engine, self._host, self._takes = engine, host, takes

    def reset(self) -> None:
        """See `Session`."""
        self._engine.reset()

    def run(self, inputs: Arrays) -> Arrays:
        """See `Session`."""
        return self._engine.run({**inputs, **self._host({name: inputs[name] for name in self._takes})})


class _Engine:
    """A session of an engine, whose states stay on the card."""

    def __init__(self, plan: Path, manifest: Mapping[str, Any]) -> None:
        if not plan.is_file():
            raise RuntimeFailure(f"there is no {plan}; python build.py makes it, on the card that it is for")
        import engine  # type: ignore[import-not-found]  # only now: it asks for TensorRT

        self._failure = engine.EngineError
        try:
            self._engine = engine.Engine(plan, {name: spec["update"] for name, spec in manifest["states"].items()})
        except self._failure as error:
            raise RuntimeFailure(str(error)) from error

    def reset(self) -> None:
        """See `Session`."""
        self._engine.reset()

    def run(self, inputs: Arrays) -> Arrays:
        """See `Session`."""
        try:
            # What the host alone reads is none of the engine's inputs, and would be refused.
            made: Arrays = self._engine.run({name: inputs[name] for name in self._engine.inputs if name in inputs})
        except self._failure as error:
            raise RuntimeFailure(str(error)) from error
        return made
