"""Vectors of 32 integers inside numba kernels, so that no loop depends on the compiler's vectoriser.

Numba widens small integers to 64 bits, which would lose the 16-bit arithmetic that makes the matrix engine fast. Here
`load` gives a vector of the array's own items (int16 or int32); `+ - * << >> & | ^` and comparisons work on two vectors
of one width, or with an integer on the right. LLVM splits the vectors into what the CPU has. Right shifts are
arithmetic, and shifts must be smaller than the item's width. Indices are not checked.
"""

import operator
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

WIDTH = 32


class Vector(types.Type):
    """Numba's type of a vector: 32 items of 1 (a comparison's outcome), 16 or 32 bits."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        super().__init__(name=f"Vector(int{bits} x {WIDTH})")

    @property
    def llvm(self) -> Any:
        """The LLVM type."""
        return ir.VectorType(ir.IntType(self.bits), WIDTH)


INT16, INT32, MASK = Vector(16), Vector(32), Vector(1)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)  # type: ignore[no-untyped-call]


def _splat(builder: Any, scalar: Any, vector: Vector) -> Any:
    item = ir.IntType(vector.bits)
    if scalar.type.width > vector.bits:
        scalar = builder.trunc(scalar, item)
    elif scalar.type.width < vector.bits:
        scalar = builder.sext(scalar, item)
    undefined = ir.Constant(vector.llvm, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH))


def _register(op: Callable[..., Any], build: Callable[[Any, Any, Any], Any], result: Vector | None = None) -> None:
    """Give an operator a meaning on two vectors of one width, and on a vector and an integer."""

    def resolve(left: Any, right: Any) -> Any:
        if isinstance(left, Vector) and (right == left or isinstance(right, types.Integer)):
            return result or left
        return None

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = arguments
        vector, other = signature.args
        return build(builder, left, right if other == vector else _splat(builder, right, vector))

    declare = cast(Any, type_callable)(op)
    declare(lambda context: resolve)
    for right_type in (Vector, types.Integer):
        register = cast(Any, lower_builtin)(op, Vector, right_type)
        register(lower)


_register(operator.add, lambda builder, left, right: builder.add(left, right))
_register(operator.sub, lambda builder, left, right: builder.sub(left, right))
_register(operator.mul, lambda builder, left, right: builder.mul(left, right))
_register(operator.lshift, lambda builder, left, right: builder.shl(left, right))
_register(operator.rshift, lambda builder, left, right: builder.ashr(left, right))
_register(operator.and_, lambda builder, left, right: builder.and_(left, right))
_register(operator.or_, lambda builder, left, right: builder.or_(left, right))
_register(operator.xor, lambda builder, left, right: builder.xor(left, right))
_register(operator.gt, lambda builder, left, right: builder.icmp_signed(">", left, right), MASK)
_register(operator.ge, lambda builder, left, right: builder.icmp_signed(">=", left, right), MASK)
_register(operator.eq, lambda builder, left, right: builder.icmp_signed("==", left, right), MASK)
_register(operator.ne, lambda builder, left, right: builder.icmp_signed("!=", left, right), MASK)


def _intrinsic(function: Callable[..., Any]) -> Any:
    """Numba's decorator, without its claim that kernels call what is decorated with the typing context as well."""
    return intrinsic(function)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Vector) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.llvm.as_pointer())


@_intrinsic
def load(_: Any, array: Any, index: Any) -> Any:
    """The 32 items of a one-dimensional contiguous int16 or int32 array from `index` on."""
    vector = INT16 if array.dtype == types.int16 else INT32

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, at = arguments
        pointer = _address(context, builder, signature.args[0], values, at, vector)
        return builder.load(pointer, align=vector.bits // 8)

    return vector(array, types.intp), build


@_intrinsic
def spread(_: Any, array: Any, index: Any) -> Any:
    """An int16 held twice in an item of an int32 array, 32 times."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, at = arguments
        data = context.make_array(signature.args[0])(context, builder, values).data
        pair = builder.load(builder.gep(data, [at]))
        half = ir.VectorType(ir.IntType(32), WIDTH // 2)
        undefined = ir.Constant(half, ir.Undefined)
        first = builder.insert_element(undefined, pair, ir.Constant(ir.IntType(32), 0))
        pairs = builder.shuffle_vector(first, undefined, ir.Constant(half, [0] * (WIDTH // 2)))
        return builder.bitcast(pairs, INT16.llvm)

    return INT16(array, types.intp), build


@_intrinsic
def store(_: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write a vector to a one-dimensional contiguous array of its width from `index` on."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, at, items = arguments
        pointer = _address(context, builder, signature.args[0], values, at, vector)
        builder.store(items, pointer, align=vector.bits // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), build


@_intrinsic
def widen(_: Any, vector: Any) -> Any:
    """int16 items as int32."""
    return INT32(vector), lambda context, builder, signature, arguments: builder.sext(arguments[0], INT32.llvm)


@_intrinsic
def narrow(_: Any, vector: Any) -> Any:
    """The lower halves of int32 items as int16."""
    return INT16(vector), lambda context, builder, signature, arguments: builder.trunc(arguments[0], INT16.llvm)


@_intrinsic
def select(_: Any, mask: Any, yes: Any, no: Any) -> Any:
    """`yes` where the mask holds, `no` elsewhere; `no` may be a scalar."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        chosen, first, second = arguments
        if not isinstance(signature.args[2], Vector):
            second = _splat(builder, second, signature.args[1])
        return builder.select(chosen, first, second)

    return yes(mask, yes, no), build


def _two_sided(relation: str) -> Any:
    @_intrinsic
    def bound(_: Any, left: Any, right: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            first, second = arguments
            if not isinstance(signature.args[1], Vector):
                second = _splat(builder, second, signature.args[0])
            compare = builder.icmp_unsigned if relation[0] == "u" else builder.icmp_signed
            return builder.select(compare(relation.removeprefix("u"), first, second), first, second)

        return left(left, right), build

    return bound


maximum = _two_sided(">")
"""The larger item of two vectors, or of a vector and a scalar."""
minimum = _two_sided("<")
"""The smaller item of two vectors, or of a vector and a scalar."""
clamp = _two_sided("u<")
"""`minimum` of what is never negative; LLVM drops it before a shift that the CPU does right without."""


@_intrinsic
def float_bits(_: Any, vector: Any) -> Any:
    """The binary32 patterns of int32 items, converted to the nearest, ties to even."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        floats = builder.sitofp(arguments[0], ir.VectorType(ir.FloatType(), WIDTH))
        return builder.bitcast(floats, INT32.llvm)

    return INT32(vector), build


@_intrinsic
def any_of(_: Any, mask: Any) -> Any:
    """Whether a mask holds anywhere."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir.IntType(WIDTH))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(WIDTH), 0))

    return types.boolean(mask), build
