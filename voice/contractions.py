"""Contractions: einsum and its relatives, and distances to a codebook, as products of two matrices each.

As in `voice.spellings`, what stands for an operation of torch returns None where that should run as it is.
"""

import math
from collections import Counter
from collections.abc import Sequence
from string import ascii_letters
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from voice.spellings import Calls, Spelling, is_plain, matmul, spelling

_BY_PRODUCTS = "use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist"
"""Modes of cdist in which torch multiplies matrices, the first only where they are large."""


def einsum(calls: Calls, equation: Any, *operands: Any) -> Tensor | None:
    """Products two by two, from the left; an equation with a diagonal, or that multiplies nothing, runs as it is."""
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    if not isinstance(equation, str) or len(tensors) < 2 or not is_plain(*tensors):
        return None
    read = _read(equation, tensors)
    if read is None:
        return None
    terms, result = read
    left: Tensor = tensors[0]
    term = terms[0]
    for index in range(1, len(terms)):
        later = set(result).union(*terms[index + 1 :])
        both = term + terms[index]
        wanted = result if index == len(terms) - 1 else "".join(key for key in dict.fromkeys(both) if key in later)
        product = _pair(calls, left, term, tensors[index], terms[index], wanted)
        if product is None:
            return None
        left, term = product, wanted
    return left


def _read(equation: str, tensors: Sequence[Tensor]) -> tuple[list[str], str] | None:
    """Terms and result of an equation, all axes by letters; None of one that is left to torch."""
    given, arrow, result = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    if len(terms) != len(tensors):
        return None
    spare = [letter for letter in ascii_letters if letter not in equation]
    hidden = [tensor.ndim - len(term) + 3 for term, tensor in zip(terms, tensors, strict=True) if "..." in term]
    most = max(hidden, default=0)
    if not arrow:
        once = Counter(given.replace("...", "").replace(",", ""))
        result = "..." * bool(hidden) + "".join(sorted(letter for letter, count in once.items() if count == 1))
    if min(hidden, default=0) < 0 or most > len(spare):
        return None
    # What the dots stand for is aligned at the right.
    ellipsis = "".join(spare[:most])
    terms = [
        term.replace("...", ellipsis[most - (tensor.ndim - len(term) + 3) :] if "..." in term else "")
        for term, tensor in zip(terms, tensors, strict=True)
    ]
    result = result.replace("...", ellipsis)
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, tensors, strict=True):
        if (
            len(term) != tensor.ndim
            or len(set(term)) != len(term)
            or not all(letter in ascii_letters for letter in term)
        ):
            return None
        for letter, size in zip(term, tensor.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                return None
    if len(set(result)) != len(result) or not set(result) <= set(sizes):
        return None
    return terms, result


def _pair(calls: Calls, a: Tensor, first: str, b: Tensor, second: str, result: str) -> Tensor | None:
    """A contraction of two tensors; what only one of them has, and the result has not, is summed before."""
    a, first = _summed(a, first, second + result)
    b, second = _summed(b, second, first + result)
    sizes = dict(zip(first, a.shape, strict=True)) | dict(zip(second, b.shape, strict=True))
    batch = "".join(index for index in first if index in second and index in result)
    inner = "".join(index for index in first if index in second and index not in result)
    rows = "".join(index for index in first if index not in second)
    columns = "".join(index for index in second if index not in first)
    order = batch + rows + columns

    def arranged(tensor: Tensor, term: str, *groups: str) -> Tensor:
        permuted = tensor.permute([term.index(index) for index in batch + "".join(groups)])
        lengths = [math.prod(sizes[index] for index in group) for group in groups]
        return permuted.reshape([sizes[index] for index in batch] + lengths)

    if not inner:
        # Nothing is summed: no matrix product.
        product: Tensor | None = arranged(a, first, rows)[..., None] * arranged(b, second, columns)[..., None, :]
    else:
        product = matmul(calls, arranged(a, first, rows, inner), arranged(b, second, inner, columns))
    if product is None:
        return None
    return product.reshape([sizes[index] for index in order]).permute([order.index(index) for index in result])


def _summed(tensor: Tensor, term: str, others: str) -> tuple[Tensor, str]:
    alone = [axis for axis, index in enumerate(term) if index not in others]
    if not alone:
        return tensor, term
    return tensor.sum(alone), "".join(index for index in term if index in others)


def tensordot(calls: Calls, a: Tensor, b: Tensor, dims: Any = 2, out: Tensor | None = None) -> Tensor | None:
    """A contraction over axes of two tensors."""
    if not is_plain(a, b) or isinstance(dims, Tensor) or out is not None:
        return None
    if isinstance(dims, int):
        left, right = list(range(a.ndim - dims, a.ndim)), list(range(dims))
    else:
        left, right = [axis % a.ndim for axis in dims[0]], [axis % b.ndim for axis in dims[1]]
    letters = iter(ascii_letters)
    first, second = [next(letters) for _ in range(a.ndim)], [next(letters) for _ in range(b.ndim)]
    for mine, other in zip(left, right, strict=True):
        second[other] = first[mine]
    result = [key for axis, key in enumerate(first) if axis not in left]
    result += [key for axis, key in enumerate(second) if axis not in right]
    return einsum(calls, f"{''.join(first)},{''.join(second)}->{''.join(result)}", a, b) if left else None


def multi_dot(calls: Calls, tensors: Sequence[Tensor]) -> Tensor | None:
    """A chain of matrices, from the left; a vector at either end is a row or a column."""
    if len(tensors) < 2 or not is_plain(*tensors):
        return None
    product: Tensor | None = tensors[0]
    for tensor in tensors[1:]:
        product = None if product is None else matmul(calls, product, tensor)
    return product


def _chain_matmul(calls: Calls, *matrices: Tensor) -> Tensor | None:
    return multi_dot(calls, matrices)


def inner(calls: Calls, input: Tensor, other: Tensor) -> Tensor | None:
    """Products of the last axes: of two vectors a sum, which runs as it is."""
    if not is_plain(input, other) or other.ndim < 2:
        return matmul(calls, input, other) if is_plain(input, other) and input.ndim > 1 else None
    product = matmul(calls, input, other.reshape(-1, other.shape[-1]).mT)
    return None if product is None else product.reshape(*input.shape[:-1], *other.shape[:-1])


def bilinear(calls: Calls, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """The second input times the weight is a linear layer; what is left sums over the first, value by value."""
    if not is_plain(input1, input2, weight) or weight.ndim != 3:
        return None
    site = calls.named_site(weight, "weight")
    if site is None:
        return None
    outputs, features, _ = weight.shape
    rows = input2.reshape(-1, input2.shape[-1])
    made = calls.call(site, "linear", rows, weight.reshape(outputs * features, -1))
    made = made.reshape(-1, outputs, features) * input1.reshape(-1, 1, features)
    result = made.sum(-1).reshape(*input2.shape[:-1], outputs)
    return result if bias is None else result + bias


def cdist(
    calls: Calls, x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = _BY_PRODUCTS[0]
) -> Tensor | None:
    """Euclidean distances by a matrix product, as torch has them where there are many; the norms are added apart.

    One table of rows is the weight of a linear layer, as the codebook in a search. Other norms run as they are.
    """
    if not is_plain(x1, x2) or min(x1.ndim, x2.ndim) < 2 or p != 2 or compute_mode not in (None, *_BY_PRODUCTS):
        return None
    table = x2.reshape(x2.shape[-2:]) if math.prod(x2.shape[:-2]) == 1 else None
    site = None if table is None else calls.table_site(table)
    if site is not None and table is not None:
        product = calls.call(site, "linear", x1, table)
    else:
        site = calls.product_site("matmul")
        if site is None:
            return None
        product = calls.call(site, "matmul", x1, x2.mT)
    squares = x1.square().sum(-1)[..., :, None] + x2.square().sum(-1)[..., None, :] - 2 * product
    # At least the smallest normal number: the root of 0 has no gradient.
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()


CONTRACTIONS: dict[Any, Spelling] = {
    torch.einsum: spelling(einsum),
    torch.tensordot: spelling(tensordot),
    torch.linalg.multi_dot: spelling(multi_dot),
    torch.chain_matmul: spelling(_chain_matmul),
    torch.inner: spelling(inner),
    torch.Tensor.inner: spelling(inner),
    F.bilinear: spelling(bilinear),
    torch.cdist: spelling(cdist),
}
