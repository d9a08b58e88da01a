"""The reading of compiled programs, on which benchmarks and tests rest, against what is known of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import hlo
from benchmarks.bench_growth import exponent


def program(function, *shapes, dtype=jnp.float32):
    compiled = jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)).compile()
    cost: Any = compiled.cost_analysis()
    return hlo.parse(compiled.as_text()), cost["flops"]


def never(scope):
    raise AssertionError(scope)


def test_a_product_in_nested_loops_counts_once_for_every_trip():
    def function(a, b):
        def inner(i, x):
            return jnp.tanh(x @ b)

        def outer(i, x):
            with jax.named_scope("again"):
                return jax.lax.fori_loop(0, 7, inner, x) @ a

        return jax.lax.fori_loop(0, 5, outer, a)

    parsed, said = program(function, (8, 8), (8, 8))
    counts = parsed.counts(never)
    assert counts.products == 2 * 8**3 * (5 * 7 + 5)
    assert counts.flops_once >= 2 * 2 * 8**3
    assert counts.flops_once == pytest.approx(said, rel=0.05)
    assert sorted(one.trips for one in parsed.loops) == [5, 7]
    assert any("again" in one.scope for one in parsed.loops)


def test_a_loop_that_depends_on_data_needs_a_trip_count():
    def function(a):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 10, lambda x: x @ x, a)

    parsed, _ = program(function, (8, 8))
    with pytest.raises(ValueError, match="no trip count for the loop 'jit"):
        parsed.counts(lambda scope: None)
    assert parsed.counts(lambda scope: 3).products == 3 * 2 * 8**3


CONVOLUTION = """HloModule m
ENTRY %main (x: f32[2,3,5,6], k: f32[4,3,3,3]) -> f32[2,4,ROWS,COLUMNS] {
  %x = f32[2,3,5,6]{3,2,1,0} parameter(0)
  %k = f32[4,3,3,3]{3,2,1,0} parameter(1)
  ROOT %c = f32[2,4,ROWS,COLUMNS]{3,2,1,0} convolution(%x, %k), window={size=3x3 PADlhs_dilate=2x1}, dim_labels=LABELS
}
"""


@pytest.mark.parametrize("pad", [0, 1])
def test_positions_on_padding_and_holes_do_not_count(pad):
    x, kernel = np.ones((2, 3, 5, 6), np.float32), np.ones((4, 3, 3, 3), np.float32)
    out = jax.lax.conv_general_dilated(x, kernel, (1, 1), [(pad, pad)] * 2, lhs_dilation=(2, 1))
    text = CONVOLUTION.replace("PAD", f"pad={pad}_{pad}x{pad}_{pad} " if pad else "").replace(
        "LABELS", "bf01_oi01->bf01"
    )
    text = text.replace("ROWS", str(out.shape[2])).replace("COLUMNS", str(out.shape[3]))
    # Of ones, the sum of the result counts the products that it took.
    assert hlo.parse(text).counts(never).products == 2 * float(jnp.sum(out))


def test_what_a_loop_slices_is_not_read_whole():
    def function(table):
        def body(i, table):
            row = jax.lax.dynamic_slice(table, (i, 0), (1, 64))
            return jax.lax.dynamic_update_slice(table, row * 2, (i, 0))

        return jax.lax.fori_loop(0, 512, body, table)

    parsed, _ = program(function, (512, 64))
    moved = parsed.counts(never).bytes
    assert 2 * 512 * 64 * 4 <= moved < 12 * 512 * 64 * 4  # rows, and the whole at the start and end


EXCHANGE = """HloModule m
ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0} parameter(0)
  ROOT %c = f32[8,4]{1,0} KIND(%x), replica_groups={{0,1}}, metadata={op_name="jit(f)/named/KIND"}
}
"""


@pytest.mark.parametrize(
    "kind",
    [
        "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all",
        "collective-broadcast",
    ],
)  # fmt: skip
def test_every_kind_of_exchange_is_read_with_its_bytes_and_place(kind):
    (found,) = hlo.parse(EXCHANGE.replace("KIND", kind)).counts(never).exchanges
    assert (found.kind, found.scope.split("/")[1], found.bytes, found.times) == (kind, "named", 8 * 4 * 4, 1)


def test_what_is_no_exchange_is_not_read_as_one():
    assert hlo.parse(EXCHANGE.replace("KIND", "negate")).counts(never).exchanges == ()


def test_an_exponent_is_the_slope_of_the_logarithms():
    assert exponent([1, 2, 4], [3, 24, 192]) == pytest.approx(3)
    assert exponent([1, 2], [5, 5]) == 0
