"""Arranged: axes that move in words only, held against torch."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.tenstorrent.lower.arranged import IDENTITY, Arranged, alike, axis_of, four, padded
from backends.tenstorrent.program import Value

SHAPES = st.lists(st.sampled_from([1, 1, 2, 3, 4]), min_size=4, max_size=4).map(four)
ORDERS = st.permutations(range(4)).map(four)


def lying(shape, order):
    """A tensor of torch, how it lies on the card, and the words for it."""
    tensor = torch.arange(math.prod(shape)).reshape(shape)
    on_card = tensor.permute(order)
    return tensor, on_card, Arranged(Value("x", tuple(on_card.shape), "bf16"), shape, order)


def as_torch(arranged, on_card):
    return on_card.permute([arranged.place(axis) for axis in range(4)])


@given(SHAPES, ORDERS, ORDERS)
def test_a_permutation_moves_nothing(shape, order, axes):
    tensor, on_card, arranged = lying(shape, order)
    turned = arranged.transposed(axes)
    assert turned.value is arranged.value
    assert turned.shape == tuple(tensor.permute(axes).shape)
    assert torch.equal(as_torch(turned, on_card), tensor.permute(axes))


@given(SHAPES, ORDERS, st.permutations(range(4)))
def test_axes_of_one_element_come_and_go_for_nothing(shape, order, places):
    tensor, on_card, arranged = lying(shape, order)
    others = [extent for extent in shape if extent != 1]
    ones = sorted(places[: 4 - len(others)])
    rest = iter(others)
    wanted = four([1 if axis in ones else next(rest) for axis in range(4)])
    seen = arranged.viewed(wanted)
    assert seen is not None
    assert seen.value is arranged.value
    assert torch.equal(as_torch(seen, on_card), tensor.reshape(wanted))


@given(SHAPES, ORDERS, SHAPES)
def test_another_shape_is_no_matter_of_words(shape, order, other):
    _, _, arranged = lying(shape, order)
    same = [extent for extent in shape if extent != 1] == [extent for extent in other if extent != 1]
    assert (arranged.viewed(other) is not None) == same


@given(SHAPES, ORDERS, ORDERS)
@settings(max_examples=300)
def test_alike_is_what_lies_the_same(shape, one, other):
    tensor, on_card, _ = lying(shape, one)
    again = tensor.permute(other)
    same = on_card.shape == again.shape and torch.equal(on_card, again)
    if alike(shape, one, other):
        assert same
    elif same:  # by chance of equal extents only where nothing can be told apart
        assert max(shape) == 1 or len([extent for extent in shape if extent != 1]) == 0


def test_shapes_are_filled_up_in_front():
    assert padded([3, 5]) == (1, 1, 3, 5)
    assert padded([]) == (1, 1, 1, 1)
    assert padded([1, 2, 3, 4, 5]) is None
    assert [axis_of(axis, 2) for axis in (0, 1, -1, -2)] == [2, 3, 3, 2]
    assert IDENTITY == (0, 1, 2, 3)
