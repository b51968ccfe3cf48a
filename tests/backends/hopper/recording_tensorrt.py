"""A TensorRT that builds and computes nothing, and records how it is called.

It shows in which order, with how many arguments and with which settings the real one would be called, and no more. What
it was asked for is held against the real bindings by `test_the_real_bindings_take_every_call`.
"""

import enum
from contextlib import nullcontext
from types import SimpleNamespace

import torch

from backends.hopper.exported import builder, engine, gpu
from backends.hopper.tensorrt import Settings

VERSION = "11.4.0.106"
H100 = gpu.Gpu("NVIDIA H100 80GB HBM3", (9, 0), (13, 0))


class _Flag(enum.IntEnum):
    STRONGLY_TYPED = 0


class _BuilderFlag(enum.Enum):
    TF32 = enum.auto()
    REFIT_INDIVIDUAL = enum.auto()


class _Verbosity(enum.Enum):
    DETAILED = enum.auto()


class _Format(enum.Enum):
    JSON = enum.auto()


class _Mode(enum.Enum):
    INPUT = enum.auto()
    OUTPUT = enum.auto()


class _Kind(enum.Enum):
    FLOAT = enum.auto()
    HALF = enum.auto()
    BF16 = enum.auto()
    FP8 = enum.auto()
    INT64 = enum.auto()
    INT32 = enum.auto()
    INT8 = enum.auto()
    UINT8 = enum.auto()
    BOOL = enum.auto()


ENUMS = {
    "NetworkDefinitionCreationFlag": _Flag,
    "BuilderFlag": _BuilderFlag,
    "ProfilingVerbosity": _Verbosity,
    "LayerInformationFormat": _Format,
    "TensorIOMode": _Mode,
    "DataType": _Kind,
}
DERIVED = {
    "ILogger": ("log", "INTERNAL_ERROR", "ERROR", "WARNING"),
    "IProgressMonitor": ("phase_start", "step_complete", "phase_finish"),
    "IProfiler": ("report_layer_time",),
}
"""Classes that are derived from, and what is overridden or read."""


class Recorded:
    """An object of a class of TensorRT; what it was not told to answer it has not."""

    def __init__(self, calls, kind, **answers):
        self.__dict__.update(calls=calls, kind=kind, answers=answers, values={})

    def __getattr__(self, name):
        if name in self.values:
            return self.values[name]
        if name not in self.answers:
            raise AttributeError(f"{self.kind} was not told to answer {name}")
        answer = self.answers[name]
        if not callable(answer):
            self.calls.append(("read", self.kind, name, 0))
            return answer

        def call(*arguments):
            self.calls.append(("call", self.kind, name, len(arguments)))
            return answer(*arguments)

        return call

    def __setattr__(self, name, value):
        self.calls.append(("set", self.kind, name, 1))
        self.values[name] = value


class ParserError:
    """One node that the parser does not take."""

    def __init__(self, name, kind, text):
        self.node_name, self.node_operator, self.desc = lambda: name, lambda: kind, lambda: text


class Library:
    """The module. Its fields say what comes of a build, and its `calls` what was asked for."""

    def __init__(self):
        self.calls, self.config_flags, self.profiles, self.marked = [], {}, [], []
        self.parser_errors, self.errors, self.plan = [], [], b"plan"
        self.cache_fits, self.timing_data, self.known_weights = True, [], ()
        self.missing, self.refuses, self.given = (), (), {}
        self.steps, self.on_step = [("Building", 3)], lambda _step: None
        self.account, self.addresses, self.shapes = '{"Layers": []}', [], {}
        self.refittable, self.network_flags, self.loads = True, None, True

    def module(self):
        def based(kind):
            return type(kind, (), {"__init__": lambda _self: self.calls.append(("derive", kind, "__init__", 0))})

        logger = based("ILogger")
        logger.INTERNAL_ERROR, logger.ERROR, logger.WARNING = range(3)
        return SimpleNamespace(
            __version__=VERSION,
            ILogger=logger,
            IProgressMonitor=based("IProgressMonitor"),
            IProfiler=based("IProfiler"),
            Builder=self._maker("Builder", self._builder),
            OnnxParser=self._maker("OnnxParser", self._parser),
            Runtime=self._maker("Runtime", self._runtime),
            Refitter=self._maker("Refitter", self._refitter),
            Weights=self._maker("Weights", lambda *held: held),
            **ENUMS,
        )

    def names(self, kind):
        """Methods called of a class, in order."""
        return [name for what, held, name, _ in self.calls if held == kind and what == "call"]

    def _maker(self, kind, make):
        def made(*arguments):
            self.calls.append(("make", kind, "__init__", len(arguments)))
            return make(*arguments)

        return made

    def _builder(self, log):
        self.log = log

        def network(flags):
            self.network_flags = flags
            return Recorded(
                self.calls, "INetworkDefinition", mark_weights_refittable=lambda name: not self.marked.append(name)
            )

        def built(_network, config):
            monitor = config.progress_monitor
            for phase, count in self.steps:
                monitor.phase_start(phase, None, count)
                for step in range(count):
                    self.on_step(step)
                    if not monitor.step_complete(phase, step):
                        return None
                monitor.phase_finish(phase)
            for text in self.errors:
                log.log(1, text)
            return self.plan

        profile = Recorded(self.calls, "IOptimizationProfile", set_shape=lambda *held: self.profiles.append(held))
        return Recorded(
            self.calls,
            "Builder",
            create_network=network,
            create_builder_config=self._config,
            create_optimization_profile=lambda: profile,
            build_serialized_network=built,
        )

    def _config(self):
        def flag(value):
            return lambda held: self.config_flags.__setitem__(held.name, value)

        def cache(data):
            self.timing_data.append(bytes(data))
            return Recorded(self.calls, "ITimingCache", serialize=lambda: b"timings")

        self.config = Recorded(
            self.calls,
            "IBuilderConfig",
            set_flag=flag(True),
            clear_flag=flag(False),
            add_optimization_profile=lambda _profile: 0,
            create_timing_cache=cache,
            set_timing_cache=lambda _cache, _ignore: self.cache_fits or self.timing_data[-1] == b"",
        )
        return self.config

    def _parser(self, _network, _log):
        errors = [Recorded(self.calls, "ParserError", **vars(one)) for one in self.parser_errors]
        return Recorded(
            self.calls,
            "OnnxParser",
            parse_from_file=lambda _path: not errors,
            num_errors=len(errors),
            get_error=lambda index: errors[index],
        )

    def _runtime(self, log):
        self.log = log

        def loaded(data):
            if not self.loads:
                log.log(1, "of another version")
                return None
            return self._engine(data)

        return Recorded(self.calls, "Runtime", deserialize_cuda_engine=loaded)

    def _engine(self, data):
        inspector = Recorded(self.calls, "EngineInspector", get_engine_information=lambda _format: self.account)
        names = [*self.shapes]
        made = {name: name.startswith("out:") for name in names}
        return Recorded(
            self.calls,
            "ICudaEngine",
            create_engine_inspector=lambda: inspector,
            create_execution_context=self._context,
            num_io_tensors=len(names),
            get_tensor_name=lambda index: names[index].removeprefix("out:"),
            get_tensor_mode=lambda name: _Mode.OUTPUT if made.get(f"out:{name}") else _Mode.INPUT,
            get_tensor_dtype=lambda _name: _Kind.FLOAT,
            get_tensor_shape=lambda name: self.shapes.get(name, self.shapes.get(f"out:{name}")),
            get_tensor_profile_shape=lambda _name, _index: [(1, 4), (1, 4), (1, 4)],
            refittable=self.refittable,
            serialize=lambda: data + b" refitted",
        )

    def _context(self):
        run = {}
        fits = {name: shape for name, shape in self.shapes.items() if not name.startswith("out:")}

        def launch(_stream):
            self.addresses.append(dict(run))
            return True

        return Recorded(
            self.calls,
            "IExecutionContext",
            set_input_shape=lambda name, shape: tuple(shape) == tuple(fits[name]),
            set_tensor_address=lambda name, address: run.__setitem__(name, address) or True,
            infer_shapes=list,
            get_tensor_shape=lambda name: self.shapes[f"out:{name}"],
            execute_async_v3=launch,
        )

    def _refitter(self, _engine, _log):
        def prototype(name):
            size, nbytes = self.known_weights[name]
            return Recorded(self.calls, "Weights", size=size, nbytes=nbytes, dtype="FLOAT")

        def given(name, weights):
            self.given[name] = weights
            return name not in self.refuses

        return Recorded(
            self.calls,
            "Refitter",
            get_all_weights=lambda: list(self.known_weights),
            get_missing_weights=lambda: [name for name in self.missing if name not in self.given],
            get_weights_prototype=prototype,
            set_named_weights=given,
            refit_cuda_engine=lambda: True,
        )


class HostTorch:
    """torch, with a CPU in place of the card."""

    def __init__(self):
        stream = SimpleNamespace(cuda_stream=7, synchronize=lambda: None, wait_stream=lambda _other: None)
        event = SimpleNamespace(record=lambda _stream: None, synchronize=lambda: None, elapsed_time=lambda _end: 0.25)
        self.replays = 0
        self.cuda = SimpleNamespace(
            is_available=lambda: True,
            device=lambda _device: nullcontext(),
            stream=lambda _stream: nullcontext(),
            Stream=lambda _device: stream,
            current_stream=lambda _device=0: stream,
            Event=lambda **_options: event,
            CUDAGraph=lambda: SimpleNamespace(replay=self._replay),
            graph=lambda _graph, **_options: nullcontext(),
        )

    def __getattr__(self, name):
        return getattr(torch, name)

    def device(self, *_where):
        return torch.device("cpu")

    def _replay(self):
        self.replays += 1


def built(library, model, **options):
    """What the builder makes of a model's file."""
    settings = options.pop("settings", Settings())
    profile = options.pop("profile", {})
    return builder.build(library.module(), engine.journal(), model, profile, settings, **options)
