"""OrtSession: an exported model run by ONNX Runtime; the only file of the toolkit that imports it.

The wheel onnxruntime-gpu 1.31.1 is linked against TensorRT 10 (libnvinfer.so.10) and CUDA 13: TensorRT 11 asks for a
build of one's own, or for `backends.hopper.tensorrt`, which needs no ONNX Runtime.
"""

import ctypes
import importlib.util
import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from backends.hopper.exported.widening import widened

Provider = Literal["cpu", "cuda", "tensorrt"]
Profile = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Smallest, usual and largest shape of an input."""
MAX_PROTO_BYTES = (1 << 31) - 1
ONLY_ERRORS = 3

_PROVIDERS: Mapping[Provider, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
_LIBRARIES: Mapping[Provider, str] = {
    "cuda": "libonnxruntime_providers_cuda.so",
    "tensorrt": "libonnxruntime_providers_tensorrt.so",
}


class OrtSession:
    """A model loaded once. Runs on a CPU are the same to the bit every time: one thread, and no choice by timing."""

    def __init__(
        self,
        model: ModelProto | Path,
        provider: Provider = "cpu",
        *,
        cache: Path | None = None,
        profiles: Mapping[str, Profile] | None = None,
        threads: int = 1,
    ) -> None:
        """Load a model.

        Args:
            model: inputs and outputs of types that numpy has. One of more than 2 GB: its file, with external data.
            provider: `cpu` computes 16-bit islands in float32 (see `exported.widening`); `cuda` and `tensorrt` take
                the model as it is.
            cache: folder in which TensorRT keeps engines and timings; None keeps nothing. Read by tensorrt only.
            profiles: shapes of inputs with dynamic axes, which TensorRT needs. Read by tensorrt only.
            threads: of a CPU.

        Raises:
            RuntimeError: ONNX Runtime is not installed, the provider cannot be had on this machine (the message says
                what is missing), or it refuses the model.
            ValueError: the model is too large to be given in memory.
            onnx.shape_inference.InferenceError: its types do not fit (cpu).
        """
        self._ort = _onnxruntime()
        self.provider: Provider = provider
        proto, folder = (
            (onnx.load(model, load_external_data=False), model.parent) if isinstance(model, Path) else (model, None)
        )
        if provider == "cpu":
            proto = widened(proto)
        if proto.ByteSize() > MAX_PROTO_BYTES:
            raise ValueError(
                f"the model has {proto.ByteSize() / 1e9:.1f} GB and a message of protobuf at most 2; save it with"
                " external data (onnx.save_model(..., save_as_external_data=True)) and give the path"
            )
        options = _session_options(self._ort, provider, threads)
        if folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        chosen = [(name, _options(name, cache, profiles or {})) for name in _PROVIDERS[provider]]
        preloaded = _preload(self._ort) if provider != "cpu" else ""
        try:
            # Without enable_fallback=0 a provider that fails is printed about, and then replaced by the CPU.
            self._session = self._ort.InferenceSession(
                proto.SerializeToString(), options, providers=chosen, enable_fallback=0
            )
        except Exception as error:
            reason = "" if provider == "cpu" else f"; {_missing(self._ort, provider)}{preloaded}"
            raise RuntimeError(
                f"ONNX Runtime's {provider} provider does not take the model: {error}{reason}"
            ) from error
        wanted, had = _PROVIDERS[provider][0], self._session.get_providers()
        if had[0] != wanted:
            raise RuntimeError(
                f"ONNX Runtime fell back from {wanted} to {had[0]}: {_missing(self._ort, provider)}{preloaded}; use"
                " provider cpu, or a machine that has it"
            )
        self.assigned = _assigned(self._session)
        """Nodes of the model by the provider that runs them."""
        if wanted not in self.assigned:
            raise RuntimeError(
                f"{wanted} took none of the model's nodes, {', '.join(self.assigned)} all of them; use provider cpu, or"
                " build an engine of it by TensorRT itself, which says why"
            )
        self.inputs: tuple[str, ...] = tuple(value.name for value in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(value.name for value in self._session.get_outputs())

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the model once.

        Args:
            inputs: all, by name, of the model's shapes and types.

        Returns:
            Outputs by name. NaN and Inf come out as the arithmetic makes them.

        Raises:
            ValueError: an input is missing or unknown, or of another shape or type.
        """
        if inputs.keys() != set(self.inputs):
            raise ValueError(f"the model reads {', '.join(self.inputs)}, got {', '.join(inputs) or 'nothing'}")
        try:
            values = self._session.run(None, dict(inputs))
        except self._ort.capi.onnxruntime_pybind11_state.InvalidArgument as error:
            raise ValueError(f"inputs do not fit the model: {error}") from error
        return dict(zip(self.outputs, values, strict=True))


def _onnxruntime() -> ModuleType:
    """ONNX Runtime, imported late: whoever runs no exported model needs none."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeError(
            f"onnxruntime cannot be imported ({error}); pip install 'precision-search[hopper]'"
        ) from error
    onnxruntime.set_default_logger_severity(ONLY_ERRORS)
    module: ModuleType = onnxruntime
    return module


def _session_options(ort: ModuleType, provider: Provider, threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = ONLY_ERRORS
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider == "cpu":
        # Q/DQ stay what they are: operations that round, and no hint at integer kernels. Weights are dequantized once.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    else:
        # A compiler of its own is to see the model as it is, with its weights in FP8.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _assigned(session: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts


def _options(name: str, cache: Path | None, profiles: Mapping[str, Profile]) -> dict[str, str]:
    """Options of a provider, by the names that ONNX Runtime 1.27 to 1.31 have.

    TensorRT gets no precision flag: with trt_fp16_enable or trt_int8_enable its network would not be strongly typed
    (onnxruntime/core/providers/tensorrt/tensorrt_execution_provider.cc, where NV_TENSORRT_MAJOR > 8).
    """
    if name == "CUDAExecutionProvider":
        return {"use_tf32": "0"}
    if name != "TensorrtExecutionProvider":
        return {}
    options: dict[str, str] = {}
    if cache is not None:
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(cache)}
        options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(cache)}
    for place, which in enumerate(("min", "opt", "max")):
        if profiles:
            options[f"trt_profile_{which}_shapes"] = ",".join(
                f"{given}:{'x'.join(str(size) for size in shapes[place])}" for given, shapes in profiles.items()
            )
    return options


def _preload(ort: ModuleType) -> str:
    """Load the libraries of CUDA, cuDNN and TensorRT that pip brought, which the system does not look for.

    Returns:
        What ONNX Runtime said of it; nothing where all went well.
    """
    told = io.StringIO()
    with redirect_stdout(told):
        ort.preload_dlls()
    found = importlib.util.find_spec("tensorrt_libs")
    for folder in [] if found is None else [Path(place) for place in found.submodule_search_locations or []]:
        for pattern in ("libnvinfer.so.*", "libnvinfer_plugin.so.*", "libnvonnxparser.so.*"):
            for library in folder.glob(pattern):
                ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    return "".join(f"; {line}" for line in told.getvalue().splitlines())


def _missing(ort: ModuleType, provider: Provider) -> str:
    """Say what a provider needs that is not there."""
    name = _PROVIDERS[provider][0]
    if name not in ort.get_available_providers():
        return f"this onnxruntime was built without {name}; install onnxruntime-gpu"
    folder = Path(str(ort.__file__)).parent / "capi"
    faults = []
    for library in dict.fromkeys((_LIBRARIES[provider], _LIBRARIES["cuda"])):
        try:
            ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
            ctypes.CDLL(str(folder / library))
        except OSError as error:
            faults.append(f"{library} does not load ({error})")
    if not Path("/dev/nvidiactl").exists():
        faults.append("no NVIDIA driver is present")
    return "; ".join(faults) or "its libraries load, so look at what it said before"
