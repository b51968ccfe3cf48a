"""Sessions of ONNX Runtime: what they compute, and what they say where they cannot."""

import builtins
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.hopper import onnx_runtime
from backends.hopper.onnx_runtime import OrtSession


def weighted(rows=3, kind=TensorProto.FLOAT):
    """y = x @ w, w of ones."""
    weight = numpy_helper.from_array(np.ones((rows, 2), np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["x"], ["x_typed"], to=kind),
        helper.make_node("Cast", ["w"], ["w_typed"], to=kind),
        helper.make_node("MatMul", ["x_typed", "w_typed"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]
    values = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", ["n", rows]), ("y", ["n", 2]))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.FLOAT16])
def test_a_model_of_any_width_runs_on_the_cpu_whatever_the_length(kind):
    session = OrtSession(weighted(kind=kind))
    assert (session.inputs, session.outputs, session.provider) == (("x",), ("y",), "cpu")
    for rows in (1, 4):
        found = session.run({"x": np.full((rows, 3), 2.0, np.float32)})
        assert found.keys() == {"y"}
        assert found["y"].tolist() == [[6.0, 6.0]] * rows


def test_which_provider_runs_what_is_told(monkeypatch):
    model = weighted(kind=TensorProto.BFLOAT16)
    session = OrtSession(model)
    assert session.assigned.keys() == {"CPUExecutionProvider"}
    assert session.assigned["CPUExecutionProvider"] >= 4
    monkeypatch.setattr(onnx_runtime, "_assigned", lambda session: {"CUDAExecutionProvider": 7})
    with pytest.raises(RuntimeError, match="took none of the model's nodes, CUDAExecutionProvider all"):
        OrtSession(model)


def test_a_gpu_gets_the_model_as_it_is_and_a_cpu_rounds_by_q_and_dq():
    import onnxruntime

    cpu, gpu = (onnx_runtime._session_options(onnxruntime, provider, 2) for provider in ("cpu", "tensorrt"))
    assert cpu.get_session_config_entry("session.disable_quant_qdq") == "1"
    assert gpu.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert (cpu.intra_op_num_threads, gpu.inter_op_num_threads) == (2, 2)
    assert cpu.use_deterministic_compute


def test_nan_and_inf_go_through():
    x = np.array([[np.nan, 0, 0], [np.inf, 0, 0]], np.float32)
    assert np.array_equal(OrtSession(weighted()).run({"x": x})["y"], [[np.nan] * 2, [np.inf] * 2], equal_nan=True)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "the model reads x, got nothing"),
        ({"x": np.zeros((1, 3), np.float32), "z": np.zeros(1)}, "the model reads x, got x, z"),
        ({"x": np.zeros((1, 4), np.float32)}, "Got: 4 Expected: 3"),
        ({"x": np.zeros((1, 3))}, r"double.*float"),
    ],
)
def test_inputs_that_do_not_fit_are_told(inputs, said):
    with pytest.raises(ValueError, match=f"(?s){said}"):
        OrtSession(weighted()).run(inputs)


def test_a_model_with_its_weights_in_a_file_beside_it_is_given_by_path(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    onnx.save_model(weighted(64), path, save_as_external_data=True, location="weights", size_threshold=0)
    assert (tmp_path / "weights").stat().st_size >= 64 * 2 * 4
    monkeypatch.chdir(tmp_path.parent)
    found = OrtSession(path).run({"x": np.ones((1, 64), np.float32)})
    assert found["y"].tolist() == [[64.0, 64.0]]


def test_a_model_beyond_what_a_message_holds_is_asked_for_by_path(monkeypatch):
    monkeypatch.setattr(onnx_runtime, "MAX_PROTO_BYTES", 100)
    with pytest.raises(ValueError, match="external data"):
        OrtSession(weighted())


def test_a_model_that_onnx_runtime_refuses_is_told_with_its_words():
    model = weighted()
    model.graph.node.append(helper.make_node("Nothing", ["y"], ["z"], domain="elsewhere"))
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    with pytest.raises(RuntimeError, match=r"cpu provider does not take the model: .*Nothing"):
        OrtSession(model)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_is_an_error_and_no_fallback(provider, capfd):
    try:
        OrtSession(weighted(), provider)
    except RuntimeError as error:
        said = str(error)
    else:
        pytest.skip(f"this machine has the {provider} provider")
    assert provider in said
    assert "does not load" in said or "no NVIDIA driver" in said or "built without" in said
    assert "Falling back" not in capfd.readouterr().out


def test_a_build_of_onnx_runtime_without_a_provider_is_named(monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert onnx_runtime._missing(onnxruntime, "tensorrt") == (
        "this onnxruntime was built without TensorrtExecutionProvider; install onnxruntime-gpu"
    )


def test_tensorrt_gets_caches_and_shapes_and_no_precision(tmp_path):
    name = "TensorrtExecutionProvider"
    options = onnx_runtime._options(name, tmp_path, {"mel": ((1, 80, 1), (1, 80, 50), (1, 80, 400)), "f0": ((1,),) * 3})
    assert options == {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(tmp_path),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path),
        "trt_profile_min_shapes": "mel:1x80x1,f0:1",
        "trt_profile_opt_shapes": "mel:1x80x50,f0:1",
        "trt_profile_max_shapes": "mel:1x80x400,f0:1",
    }
    assert onnx_runtime._options(name, None, {}) == {}


def test_without_onnx_runtime_the_extra_is_named(monkeypatch):
    wanted = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return wanted(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(RuntimeError, match=r"precision-search\[hopper\]"):
        OrtSession(weighted())
