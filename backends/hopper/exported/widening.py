"""Widening: a model with 16-bit islands for runtimes that lack 16-bit kernels, computed as a fused kernel would.

A tensor core multiplies bf16 or fp16 operands and adds in fp32, and a bias is added before the sum is rounded. Here the
same operands, rounded to 16 bits, are multiplied and added in float32, and the sum is rounded once at the end. The file
stands by itself: an export holds it as it is.
"""

from collections.abc import Iterable

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

NARROW = (TensorProto.BFLOAT16, TensorProto.FLOAT16)
LARGE = 1 << 10
"""Elements from which on an initializer's numbers are left out where only its type is asked for."""


def widened(model: ModelProto) -> ModelProto:
    """Give a model whose bf16 and fp16 nodes compute in float32, and of which only Cast still reads or writes 16 bits.

    An island is a run of 16-bit nodes between Casts. Values that enter it (and 16-bit initializers) are of 16 bits as
    before; what one of its nodes hands to the next is not rounded; what leaves it is rounded once, to the type it had.
    Everything else, FP8 included, stays as it is, and so do the types of the graph's inputs and outputs.

    Args:
        model: one flat graph, whose types ONNX can infer. It is left as it is.

    Raises:
        ValueError: a node holds a graph of its own, or the model has functions of its own.
        onnx.shape_inference.InferenceError: types do not fit.
    """
    for node in model.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ValueError(
                f"node {node.name!r} ({node.op_type}) holds a graph of its own; widening takes flat graphs"
            )
    if model.functions:
        raise ValueError("the model has functions of its own; put them in place first (onnx.inliner)")
    types = tensor_types(model)
    narrow = {name: kind for name, kind in types.items() if kind in NARROW}
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    cast = {name for node in graph.node if node.op_type == "Cast" for name in node.input}
    kept = cast | {value.name for value in graph.output}
    nodes = list(_widened(graph.node, narrow, kept))
    del graph.node[:]
    graph.node.extend(nodes)
    held = [value for value in graph.value_info if value.name not in narrow]
    del graph.value_info[:]
    graph.value_info.extend(held)
    return result


def tensor_types(model: ModelProto) -> dict[str, int]:
    """Element type (`TensorProto.DataType`) of every tensor of a model's graph, as ONNX infers them.

    Raises:
        onnx.shape_inference.InferenceError: types do not fit.
    """
    graph = GraphProto(name=model.graph.name, node=model.graph.node, input=model.graph.input, output=model.graph.output)
    # Weights of gigabytes would not pass through inference; shapes may hang on the numbers of small ones.
    for tensor in model.graph.initializer:
        if sum(1 for _ in tensor.external_data) == 0 and _elements(tensor) < LARGE:
            graph.initializer.append(tensor)
        elif tensor.name not in {value.name for value in graph.input}:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    skeleton = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)
    inferred = shape_inference.infer_shapes(skeleton, check_type=True, strict_mode=True).graph
    values: Iterable[ValueInfoProto] = (*inferred.input, *inferred.value_info, *inferred.output)
    types = {value.name: int(value.type.tensor_type.elem_type) for value in values}
    return types | {tensor.name: int(tensor.data_type) for tensor in model.graph.initializer}


def _widened(nodes: Iterable[NodeProto], narrow: dict[str, int], kept: set[str]) -> Iterable[NodeProto]:
    """The nodes, and Casts where values enter or leave islands."""
    wide: dict[str, str] = {}  # 16-bit tensor -> its float32 counterpart
    for node in nodes:
        if node.op_type == "Cast" or not narrow.keys() & {*node.input, *node.output}:
            yield node
            continue
        changed = NodeProto()
        changed.CopyFrom(node)
        for index, name in enumerate(node.input):
            if name not in narrow:
                continue
            if name not in wide:
                wide[name] = f"{name}/float32"
                yield helper.make_node("Cast", [name], [wide[name]], name=wide[name], to=TensorProto.FLOAT)
            changed.input[index] = wide[name]
        left = []
        for index, name in enumerate(node.output):
            if name in narrow:
                wide[name] = f"{name}/float32"
                changed.output[index] = wide[name]
                left += [name] if name in kept else []
        _widen_values(changed)
        yield changed
        for name in left:
            yield helper.make_node("Cast", [wide[name]], [name], name=f"{name}/rounded", to=narrow[name])


def _widen_values(node: NodeProto) -> None:
    """Take a Constant, or any other node with a 16-bit tensor among its attributes, to float32."""
    for attribute in node.attribute:
        if attribute.t.data_type in NARROW:
            values = numpy_helper.to_array(attribute.t).astype("float32")
            attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))


def _elements(tensor: TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count
