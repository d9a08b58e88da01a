"""The page that `python -m benchmarks pod` writes, from what the compiler said."""

import textwrap
from typing import Any

from benchmarks.bench_pod import CHIPS, PASSES, case_of, memory_of, name_of, projected, weak_scaling
from benchmarks.pod_compile import LLAMA, STEPS

_MADE = ("shard_map", "while", "body", "closed_call", "cond")
"""Words of a scope that JAX puts there."""

_HEAD = """# The sweep's step on TPU slices

Made by `python -m benchmarks pod` with the TPU's own compiler (XLA:TPU, jax {jax}), for slices that are not there: no
number here was measured on a TPU. Load of the machine at the end: {load}.{notes}

One step: Llama 3.1 8B, weights in bfloat16, prompts of 128 tokens, the last token of each a sample, the in-context
Jacobian of the block (4096 x 4096, float32), Schur form with vectors by `jaxdyn_kernels` (`xla`), eigenvalues,
condition numbers, singular values, every measure of `jaxdyn.measures` but the Kreiss constant, sums by unit. Two
samples a chip. The unembedding is not loaded.

Singular values come by `jaxdyn_kernels.singular_values` (`bisection`): reflectors to bidiagonal form and counts of
pivots, two loops; alone they compile for a v5e at 4096 in 1.4 s of processor time, with 0.07 GB of temporaries.
Self-alignment comes from projectors on the leading singular directions, made by Newton's iteration for the sign
function: 26 s, 0.81 GB. XLA's own, `jnp.linalg.svd` without vectors, was not compiled at 4096 within 400 s (other work
beside it).
"""

_OPERATIONS = """## Operations of a chip
Weak scaling: the operations of N chips with two samples each, over N times those of the program of one chip with two
samples, a v5p (a v5e has no room for the weights). The compiler counts the body of a loop once; "bodies once" is our
count made so, which checks the reading of the program; "with trips" has the trip counts below.

| slice, layout | compiler's count | ours, bodies once | ours, with trips | of them products | over one chip's |
|---|---|---|---|---|---|
"""

_SECONDS = """
The maker's rates:

{rates}

The clock follows from the rate of the matrix units. Products in float32 at the highest precision take {passes} passes
in bfloat16. The first three columns are what each resource would take by itself at its full rate: none of them is what
the step takes. The fourth adds up the compiler's own estimate of cycles for every
operation, times its trips. It has the 2100 or so cycles that the compiler sees in any operation however small, and
nothing for exchanges. The Schur form is a chain of some 10^8 dependent operations on a few rows and columns: that, and
not arithmetic, is its time, and the reason why a faster method is needed there. The measures are most of the rest, with
three sets of singular values a matrix. Forward pass to the average layer, (32 - 1) / 2 blocks.
"""


def page(found: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """Write the whole page."""
    good = [result for result in found if "flops" in result]
    notes: dict[str, list[str]] = {}
    for result in good:
        if "note" in result:
            notes.setdefault(result["note"], []).append(name_of(case_of(result)))
    told = "".join(_paragraph(f"{', '.join(names)}: {note}.") for note, names in notes.items())
    head = _HEAD.format(jax=machine["version_jax"], load=machine["load"][0], notes=told)
    parts = [head, _memory(found), _operations(good), _seconds(good), _exchanges(good), _loops(good)]
    return "\n".join(parts)


def _paragraph(text: str) -> str:
    return "\n\n" + textwrap.fill(text, 118)


def _memory(found: list[dict[str, Any]]) -> str:
    lines = [
        "## Memory of a chip",
        "| slice, layout | chips | arguments | temporaries | outputs | of | margin |",
        "|---|---|---|---|---|---|---|",
    ]
    beyond = False
    for result in found:
        case = case_of(result)
        chip = CHIPS[case.topology.partition(":")[0]]
        if "flops" not in result:
            why = f"refused by the compiler: {result['refused']}" if "refused" in result else "not compiled"
            lines.append(f"| {name_of(case)} | {result.get('chips', '')} | {why} | | | {_gb(chip.memory)} | |")
            continue
        used = memory_of(result)
        sizes = " | ".join(_gb(result[key]) for key in ("arguments", "temporaries", "outputs"))
        margin = f"{100 * (1 - used / chip.memory):.0f} %"
        if used > chip.memory:
            beyond = True
            margin = f"**does not fit**, {_gb(used - chip.memory)} too much"
        lines.append(f"| {name_of(case)} | {result['chips']} | {sizes} | {_gb(chip.memory)} | {margin} |")
    return "\n".join(
        [
            *lines,
            "",
            "The memory is the maker's figure, a GB is 10^9 bytes; what must fit is the sum of the three.",
            *["The compiler did not refuse the program that does not."] * beyond,
            *['"Not compiled": not done when this was made.'] * any("flops" not in result for result in found),
            "",
        ]
    )


def _operations(good: list[dict[str, Any]]) -> str:
    shares = {name_of(case_of(result)): share for result, share in weak_scaling(good)}
    lines = []
    for result in good:
        name = name_of(case_of(result))
        share = f"{shares[name]:.4f}" if name in shares else "1"
        kinds = ("compiler_flops", "flops_once", "flops", "products")
        counts = " | ".join(f"{result[key] / 1e12:.4f} T" for key in kinds)
        lines.append(f"| {name} | {counts} | {share} |")
    return _OPERATIONS + "\n".join([*lines, ""])


def _seconds(good: list[dict[str, Any]]) -> str:
    lines = [
        "## Projected seconds a sample and layer",
        "| slice, layout | products | memory | links | the compiler's cycles | of them Schur form | measures |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in good:
        case = case_of(result)
        chip = CHIPS[case.topology.partition(":")[0]]
        seconds = projected(result, chip)
        shares = [100 * result["by_stage"][stage] / result["cycles"] for stage in ("schur", "measures")]
        cells = " | ".join(f"{seconds[key]:.3g} s" for key in ("products", "memory", "links", "cycles"))
        lines.append(f"| {name_of(case)} | {cells} | {shares[0]:.1f} % | {shares[1]:.1f} % |")
    rates = "\n".join(
        f"- {chip.name}: {chip.products / 1e12:g} T operations in bfloat16 a second, {chip.bandwidth / 1e9:g} GB/s of "
        f"memory, {chip.links / 1e9:g} GB/s of links, {chip.clock / 1e9:.2f} GHz"
        for chip in CHIPS.values()
    )
    return "\n".join(lines) + "\n" + _SECONDS.format(rates=rates, passes=PASSES)


def _exchanges(good: list[dict[str, Any]]) -> str:
    lines = [
        "## Exchanges between chips",
        "Every collective of each program; bytes are those of its result on a chip, times how often it runs in a step.",
        "",
        "| slice, layout | collective | where | in the program | bytes | times | total |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in good:
        name = name_of(case_of(result))
        if not result["exchanges"]:
            lines.append(f"| {name} | none | | | | | 0 |")
        grouped: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
        for one in result["exchanges"]:
            grouped.setdefault((one["kind"], place(one["scope"]), one["times"]), []).append(one)
        for (kind, where, times), ones in grouped.items():
            size = sum(one["bytes"] * one["count"] for one in ones)
            count = sum(one["count"] for one in ones)
            lines.append(f"| {name} | {kind} | {where} | {count} | {_gb(size)} | {times:g} | {_gb(size * times)} |")
    inside = [one["scope"] for result in good for one in result["exchanges"] if "/schur/" in one["scope"]]
    said = ", ".join(sorted(set(inside))) or "none"
    unnamed = [
        "",
        "Without a place: the compiler's own. Seven weights of a layer are gathered; where it makes an all-reduce of",
        "two, keys and values by their 16.8 MB, that has lost the scope `gather_layer`, and five are left there.",
    ]
    rewritten = any(not one["scope"] for result in good for one in result["exchanges"])
    return "\n".join([*lines, *unnamed * rewritten, "", f"In the Schur form, its iteration included: {said}.", ""])


def place(scope: str) -> str:
    """Return the stage and the named scope of an exchange, without what JAX puts between."""
    words = [word for word in scope.split("/")[1:] if word not in _MADE]
    return " / ".join(words[:-1]) or scope


def _loops(good: list[dict[str, Any]]) -> str:
    names = {"forward/while": "blocks of the forward pass", "schur/while": "sweeps of the Schur form"}
    names["schur/while/body/while"] = "positions of the bulge in a sweep"
    names["sign/while"] = "steps of the sign functions (the most that the program allows)"
    trips = {
        one["scope"].removeprefix("jit(run)/").removeprefix("shard_map/"): one["trips"]
        for one in good[-1]["loops"]
        if one["given"]
    }
    trips = {"sign/while" if scope.endswith("sign/while") else scope: count for scope, count in trips.items()}
    measured = "; ".join(f"{n}: {a / n:.3f} n, {b / n**2:.3f} n^2" for n, (a, b) in sorted(STEPS.items()))
    order = max(STEPS)
    how = f"Order 4096 was not measured: the ratios of {order} stand for it; they fall as n grows."
    lines = [
        "## Trip counts",
        "The conditions of the loops say how often they run, but for these:",
        "",
        "| loop | trips |",
        "|---|---|",
        *(f"| {names.get(scope, scope)} | {count:g} |" for scope, count in trips.items()),
        "",
        "Sweeps and positions over all sweeps, measured on a CPU with one matrix I + G, G Ginibre",
        f"(`python -m benchmarks.pod_depth`), at order {measured}.",
        *([] if order == LLAMA.width else [how]),
        "",
    ]
    return "\n".join(lines)


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.3f} MB"
