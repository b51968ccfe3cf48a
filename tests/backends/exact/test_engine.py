from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.tenstorrent.exact import threads
from backends.tenstorrent.exact.definition import engine as definition
from backends.tenstorrent.exact.eltwise import elementwise
from backends.tenstorrent.exact.matmul import elwmul_step, matmul, mvmul_step
from precision.policy import FIDELITIES

VECTORS = Path(__file__).parents[4] / "shared" / "numerics"
ONE, MINUS_ONE, INF, NAN = 0x3F800000, 0xBF800000, 0x7F800000, 0x7FC00000
ODD_ONES = np.array([0, 1 << 31, 1, 0x807FFFFF, INF, 1 << 31 | INF, NAN, 0xFF812000, 0x7F7FE000, 0x00800000], np.uint32)
RULES = [(dst16, wormhole) for dst16 in (False, True) for wormhole in (False, True)]

seeds = st.integers(0, 2**32 - 1)


def registers(rng, shape):
    """Source registers that meet: exponents near each other, short mantissas, zeros, denormals, inf, NaN, extremes."""
    centre, spread = rng.integers(0, 256), rng.choice([1, 4, 16, 40, 255])
    exponent = np.clip(centre + rng.integers(-spread, spread + 1, shape), 0, 255)
    mantissa = rng.integers(0, 1024, shape) & rng.choice([0, 0x200, 0x3F8, 0x3FF], shape)
    bits = (rng.integers(0, 2, shape) << 31 | exponent << 23 | mantissa << 13).astype(np.uint32)
    return np.where(rng.random(shape) < 0.06, rng.choice(ODD_ONES, shape), bits)


def cancelling(rng, values):
    """The same with some lanes the exact opposite of others, as products with like operands on the other side."""
    half = values.shape[-1] // 2
    opposed = values.copy()
    opposed[..., half : 2 * half] = values[..., :half] ^ (1 << 31)
    return np.where(rng.random((*values.shape[:-1], 1)) < 0.3, opposed, values)


def destinations(rng, results, dst16):
    """Destinations near minus a result, or of any pattern."""
    near = (results ^ (1 << 31)) + rng.integers(-3, 4, results.shape).astype(np.uint32)
    anything = rng.integers(0, 2**32, results.shape, dtype=np.uint32)
    odd = rng.choice(ODD_ONES, results.shape)
    which = rng.random(results.shape)
    chosen = np.where(which < 0.6, near, np.where(which < 0.9, anything, odd)).astype(np.uint32)
    return chosen & np.uint32(0xFFFF0000) if dst16 else chosen


def same(got, expected):
    np.testing.assert_array_equal(got.view(np.uint32).reshape(-1), np.array(expected, np.uint32))


@pytest.mark.parametrize(("dst16", "wormhole"), RULES)
@given(seeds)
@settings(max_examples=12)
def test_steps_of_matrix_products_are_as_defined(dst16, wormhole, seed):
    rng = np.random.default_rng(seed)
    rules = {"dst16": dst16, "wormhole": wormhole, "tf32": bool(rng.integers(2))}
    srca, srcb = registers(rng, (40, 16)), registers(rng, (40, 16))
    srca, srcb = cancelling(rng, srca), np.where(rng.random((40, 1)) < 0.3, srcb[:, :1], srcb)
    phase = int(rng.integers(4))
    dst = destinations(rng, mvmul_step(srca, srcb, np.zeros(40), phase, **rules).view(np.uint32), dst16)
    expected = [
        definition.mvmul(a.tolist(), b.tolist(), int(d), phase, **rules)
        for a, b, d in zip(srca, srcb, dst, strict=True)
    ]
    same(mvmul_step(srca, srcb, dst, phase, **rules), expected)


@pytest.mark.parametrize(("dst16", "wormhole"), RULES)
@given(seeds)
@settings(max_examples=12)
def test_steps_of_elementwise_products_are_as_defined(dst16, wormhole, seed):
    rng = np.random.default_rng(seed)
    rules = {"dst16": dst16, "wormhole": wormhole, "tf32": bool(rng.integers(2))}
    srca, srcb, phase = registers(rng, 200), registers(rng, 200), int(rng.integers(4))
    dst = destinations(rng, elwmul_step(srca, srcb, np.zeros(200), phase, **rules).view(np.uint32), dst16)
    steps = zip(srca.tolist(), srcb.tolist(), dst.tolist(), strict=True)
    same(elwmul_step(srca, srcb, dst, phase, **rules), [definition.elwmul(*step, phase, **rules) for step in steps])


@pytest.mark.parametrize("op", ["add", "sub", "mul"])
@given(seeds, st.sampled_from(RULES), st.sampled_from(FIDELITIES))
@settings(max_examples=12)
def test_elementwise_operations_are_as_defined(op, seed, destination, fidelity):
    rng = np.random.default_rng(seed)
    rules = {"dst16": destination[0], "wormhole": destination[1], "tf32": bool(rng.integers(2))}
    left, right = registers(rng, (9, 11)), registers(rng, (9, 11))
    right = np.where(
        rng.random(right.shape) < 0.2, left ^ rng.integers(0, 2, left.shape).astype(np.uint32) << 31, right
    )
    expected = []
    for a, b in zip(left.reshape(-1).tolist(), right.reshape(-1).tolist(), strict=True):
        if op == "mul":
            dst = 0
            for phase in definition.PHASES[fidelity]:
                dst = definition.elwmul(a, b, dst, phase, **rules)
        else:
            dst = definition.elwadd(a, b, subtract=op == "sub", **rules)
        expected.append(dst)
    got = elementwise(op, left, right, fidelity, **rules)
    assert got.shape == (9, 11)
    same(got, expected)


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 33, 1), (2, 16, 34), (33, 8, 3), (2, 100, 3), (5, 64, 2)])
@given(seeds, st.sampled_from(RULES), st.booleans())
@settings(max_examples=3)
def test_products_of_any_shape_are_as_defined(fidelity, shape, seed, destination, given_start):
    rows, depth, columns = shape
    rng = np.random.default_rng(seed)
    rules = {"dst16": destination[0], "wormhole": destination[1], "tf32": bool(rng.integers(2))}
    a, b = registers(rng, (rows, depth)), cancelling(rng, registers(rng, (columns, depth))).T
    a[rng.random(a.shape) < 0.3] = 0
    start = destinations(rng, np.zeros((rows, columns), np.uint32), rules["dst16"]) if given_start else None
    got = matmul(a, b, fidelity, start=start, **rules)
    assert got.shape == (rows, columns)
    begin = np.zeros((rows, columns), np.uint32) if start is None else start
    expected = [
        definition.matmul(a[row].tolist(), b[:, column].tolist(), int(begin[row, column]), fidelity, **rules)
        for row in range(rows)
        for column in range(columns)
    ]
    same(got, expected)


def test_lofi_reads_five_bits_of_the_weight_and_seven_of_the_activation():
    one, weight, activation = np.ones((1, 1)), np.float32([[1 + 1 / 32]]), np.float32([[1 + 1 / 128]])
    assert matmul(one, weight, "lofi") == 1
    assert matmul(one, weight, "hifi2") == weight
    assert matmul(activation, one, "hifi2") == 1
    assert matmul(activation, one, "hifi3") == activation


def test_only_tf32_registers_show_ten_bits_and_never_the_weights_last():
    one, fine = np.ones((1, 1)), np.float32([[1 + 2**-9]])
    assert matmul(one, fine, "hifi4") == 1
    assert matmul(one, fine, "hifi4", tf32=True) == fine
    assert matmul(one, np.float32([[1 + 2**-10]]), "hifi4", tf32=True) == 1
    assert matmul(np.float32([[1 + 2**-10]]), one, "hifi4", tf32=True) == np.float32(1 + 2**-10)


def test_infinity_and_nan_are_numbers():
    patterns = np.array([[INF, NAN]], np.uint32)
    cancelled = matmul(patterns, np.float32([[3], [-2]]), "lofi")  # 3 * 2**128 - 2 * 1.5 * 2**128
    assert cancelled.view(np.uint32) == 0
    assert matmul(patterns[:, :1], np.float32([[-0.25]]), "lofi") == -(2.0**126)
    assert matmul(patterns[:, :1], np.float32([[-1]]), "lofi") == -np.inf


def test_minus_one_unit_is_wrong_on_wormhole_only():
    srca = np.zeros((1, 16), np.uint32)
    srcb = np.full((1, 16), ONE, np.uint32)
    srca[0, 0], srca[0, 8] = MINUS_ONE, (127 - 23) << 23 | 1 << 31
    assert mvmul_step(srca, srcb, np.ones(1), 0) == -(2.0**-23)
    assert mvmul_step(srca, srcb, np.ones(1), 0, wormhole=True) == -16
    assert mvmul_step(srca ^ (1 << 31), srcb, -np.ones(1), 0, wormhole=True) == 2.0**-23


def test_bf16_destinations_round_at_every_step():
    a, b = np.ones((1, 48), np.float32), np.zeros((48, 1), np.float32)
    b[[0, 16, 32], 0] = 256, 1, 1  # 257 rounds away to 258
    assert matmul(a, b, "lofi", dst16=True) == 260
    assert matmul(a, b, "lofi") == 258


@pytest.mark.parametrize("dst16", [False, True])
def test_results_do_not_depend_on_the_number_of_threads(dst16):
    rng = np.random.default_rng(0)
    a, b = registers(rng, (130, 96)), registers(rng, (96, 200))
    before = threads.threads()
    try:
        results = []
        for count in (1, 2, 5):
            threads.set_threads(count)
            results.append((matmul(a, b, "hifi4", dst16=dst16), elementwise("mul", a, a, "hifi2", dst16=dst16)))
    finally:
        threads.set_threads(before)
    for product, squares in results[1:]:
        np.testing.assert_array_equal(product.view(np.uint32), results[0][0].view(np.uint32))
        np.testing.assert_array_equal(squares.view(np.uint32), results[0][1].view(np.uint32))


def test_operands_are_left_as_they_are_and_may_be_views_of_any_order():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((40, 70)).astype(np.float32), rng.standard_normal((70, 40)).astype(np.float32)
    a.flags.writeable = False
    start = np.ones((40, 40), np.float32)
    expected = matmul(a, b, "hifi2", start=start)
    np.testing.assert_array_equal(matmul(np.asfortranarray(a), b[:, ::-1][:, ::-1], "hifi2", start=start), expected)
    assert (start == 1).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: matmul(np.ones((2, 3)), np.ones((2, 3)), "lofi"), r"got \(2, 3\) and \(2, 3\)"),
        (lambda: matmul(np.ones((2, 3)), np.ones((3, 2)), "hifi5"), "not 'hifi5'"),
        (lambda: matmul(np.ones((2, 3)), np.ones((3, 2)), "lofi", start=np.ones(2)), r"its start is \(2,\)"),
        (lambda: matmul(np.ones((1, 1)), np.ones((1, 1)), "lofi", True, start=np.full((1, 1), 1.001)), "holds bf16"),
        (lambda: mvmul_step(np.ones((2, 8)), np.ones((2, 8)), np.ones(2), 0), r"\[n, 16\], got \(2, 8\)"),
        (lambda: mvmul_step(np.ones((2, 16)), np.ones((2, 16)), np.ones(2), 4), "not 4"),
        (lambda: elwmul_step(np.ones(2), np.ones(3), np.ones(2), 0), r"got \(2,\) and \(3,\)"),
        (lambda: elementwise("add", np.ones(2), np.ones(3), "lofi"), r"got \(2,\) and \(3,\)"),
        (lambda: elementwise("div", np.ones(2), np.ones(2), "lofi"), "not 'div'"),
        (lambda: threads.set_threads(0), "not 0"),
        (lambda: threads.run_chunks(print, 1, 0), "not 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(st.integers(0, 50), st.integers(1, 60), st.integers(1, 4))
def test_chunks_cover_everything_once(n_items, chunk, count):
    before, seen = threads.threads(), []
    threads.set_threads(count)
    try:
        threads.run_chunks(lambda start, stop: seen.append((start, stop)), n_items, chunk)
    finally:
        threads.set_threads(before)
    assert sorted(seen) == [(start, min(start + chunk, n_items)) for start in range(0, n_items, chunk)]


def test_chunks_may_nest_and_raise_what_a_chunk_raised():
    before, seen = threads.threads(), []
    threads.set_threads(3)

    def outer(start, stop):
        threads.run_chunks(lambda i, j: seen.append((start, i)), 4, 1)
        if start == 5:
            raise KeyError(start)

    try:
        threads.run_chunks(outer, 4, 1)
        assert sorted(seen) == [(i, j) for i in range(4) for j in range(4)]
        with pytest.raises(KeyError, match="5"):
            threads.run_chunks(outer, 8, 1)
    finally:
        threads.set_threads(before)


def golden(name):
    path = VECTORS / name
    if not path.is_file():
        pytest.skip(f"no golden vectors: {name} does not lie in ../shared/numerics")
    with np.load(path) as archive:
        return dict(archive)


def architectures(arrays, key):
    """Whether the key's bits are Wormhole's: without a key of its own Blackhole has the same."""
    if key.endswith("bh"):
        return [False]
    return [True] if key[:-2] + "bh" in arrays else [True, False]


def view(arrays, prefix, name):
    side, fmt = name.split("_")
    if fmt != "fp32tr":
        return arrays[prefix + name]
    bits = arrays[f"{prefix}{side}_raw"].view(np.uint32)  # fp32 unpacked to bf16: denormals to zero, then cut
    return np.where(bits & INF, bits, bits & 0x80000000).astype(np.uint32) & np.uint32(0xFFFF0000)


@pytest.mark.parametrize("op", ["mvmul", "elwmul"])
@pytest.mark.parametrize("phase", range(4))
@pytest.mark.parametrize("dst", ["dst16", "dst32"])
def test_recorded_steps(op, phase, dst):
    arrays = golden("steps.npz")
    prefix = f"{op}__p{phase}__{dst}__"
    step = mvmul_step if op == "mvmul" else elwmul_step
    operands = [arrays[prefix + name] for name in ("srca", "srcb", "dst")]
    for key in [key for key in arrays if key.startswith(prefix + "out")]:
        for wormhole in architectures(arrays, key):
            same(step(*operands, phase, dst == "dst16", wormhole), arrays[key])


def test_recorded_elementwise_operations():
    arrays = golden("eltwise.npz")
    for key in [key for key in arrays if key.startswith("C__")]:
        _, op, combo, fidelity, dst, _ = key.split("__")
        left, right = combo.split("_")
        operands = view(arrays, "", f"A_{left}"), view(arrays, "", f"B_{right}")
        for wormhole in architectures(arrays, key):
            got = elementwise(op, *operands, fidelity.lower(), dst == "dst16", wormhole, left == "tf32")
            same(got, arrays[key].view(np.uint32).reshape(-1))


@pytest.mark.parametrize("name", ["matmul_32x64x32.npz", "matmul_64x512x64.npz"])
def test_recorded_products(name):
    arrays = golden(name)
    keys = [key for key in arrays if "__C__" in key]
    assert len(keys) > 100
    for key in keys:
        kind, _, combo, fidelity, dst, _ = key.split("__")
        left, right = combo.split("_")
        operands = view(arrays, f"{kind}__", f"A_{left}"), view(arrays, f"{kind}__", f"B_{right}")
        for wormhole in architectures(arrays, key):
            got = matmul(*operands, fidelity.lower(), dst == "dst16", wormhole, tf32=left == "tf32")
            same(got, arrays[key].view(np.uint32).reshape(-1))
