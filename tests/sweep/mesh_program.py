"""The sweep's step on eight CPU devices: run in a process of its own, which prints one line of JSON a case.

`python -m tests.sweep.mesh_program step` or `... families`, with eight devices forced by XLA_FLAGS. LAPACK stays out:
several forced devices that call it at once can wait for each other for ever.
"""

import json
import sys

import jax
import numpy as np

from benchmarks import hlo
from jaxdyn.jacobians import Request
from jaxdyn.models import parameters
from jaxdyn.models.architecture import Architecture, Rope
from jaxdyn.sharding import mesh_for
from jaxdyn.sweep.step import StepSettings, make_step, read_by_step

LLAMA = Architecture(
    family="llama", width=16, layers=3, heads=8, kv_heads=4, head_dim=4, ff_dim=24, vocab=64, context=32, norm="rms",
    norm_eps=1e-5, activation="silu", gated=True, qkv_bias=False, output_bias=False, mlp_bias=False, position="rope",
    rope=Rope(100.0), tied_head=False, initializer_range=0.3, initializer="normal",
)  # fmt: skip
LAYOUTS = {"data": 1, "fsdp": 1, "tensor": 4}
PROMPTS, TOKENS, LAYER = 8, 6, 2


def batch(vocab):
    rng = np.random.default_rng(0)
    ids, lengths = rng.integers(0, vocab, (PROMPTS, TOKENS)), rng.integers(4, TOKENS + 1, PROMPTS)
    position = np.stack([lengths - 1, lengths - 3], axis=1)
    return ids, lengths, position


def weights():
    """Parameters of LLAMA, the same numbers in every process: XLA's own draws depend on how it optimises."""
    rng, shapes = np.random.default_rng(1), parameters.shapes(LLAMA)
    ones = {path: np.ones(shape) for path, shape in shapes.items() if path.endswith("scale")}
    drawn = {path: 0.3 * rng.standard_normal(shape) for path, shape in shapes.items() if path not in ones}
    return parameters.nest({path: jax.numpy.asarray(leaf) for path, leaf in (ones | drawn).items()})


def halves():
    """The half of every sample; the fourth prompt pads a unit."""
    half = np.arange(16).reshape(8, 2) % 2
    half[3] = -1
    return half


def step():
    params = weights()
    ids, lengths, position = batch(LLAMA.vocab)
    settings = StepSettings(parts=("block", "update"), unit=2, singular=False, keep_matrices=True)
    for name, model in LAYOUTS.items():
        made = make_step(LLAMA, mesh_for(name, model=model), name, settings)
        own = made.place(params)
        program = made.jitted.lower(*made.arguments(PROMPTS, TOKENS, 2, dtype="float64")).compile()
        arrays = (np.asarray(one, np.int32) for one in (ids, lengths, position, halves(), LAYER))
        found = program(read_by_step(own), *arrays)
        counts = hlo.parse(program.as_text()).counts(lambda _: 1)
        told = {
            "layout": name,
            "collectives": [[one.kind, one.scope, one.bytes / 8] for one in counts.exchanges],
            "result_split": [str(found.matrices.sharding.spec), list(found.matrices.addressable_shards[0].data.shape)],
            "weights": list(own["blocks"]["mlp"]["up"].addressable_shards[0].data.shape),
            "result": {
                jax.tree_util.keystr(path, simple=True): as_list(leaf)
                for path, leaf in jax.tree_util.tree_leaves_with_path(found)
            },
        }
        if name == "tensor":
            jacobians = made.jacobians(own, ids, lengths, position, LAYER)
            told["split"] = [str(jacobians.sharding.spec), list(jacobians.addressable_shards[0].data.shape)]
            told["jacobians"] = np.asarray(jacobians).tolist()
        print(json.dumps(told), flush=True)


def as_list(leaf):
    leaf = np.asarray(leaf)
    return [leaf.real.tolist(), leaf.imag.tolist()] if np.iscomplexobj(leaf) else leaf.tolist()


def families():
    """Jacobians of other families and routes, split over heads and hidden units, against one device."""
    from tests.models.tiny import GPT2, TINY

    four = {"num_key_value_heads": 4}
    cases = {
        "gpt2": (TINY["gpt2"](**GPT2 | {"n_embd": 16, "n_inner": 24, "n_head": 4}), "in-context", "closed-form"),
        "gpt_neox": (TINY["gpt_neox"](hidden_size=16, intermediate_size=24), "in-context", "closed-form"),
        "gemma4": (TINY["gemma4_text"](**four), "isolated", "closed-form"),
        "qwen3": (TINY["qwen3"](**four, attention_bias=True), "in-context", "autodiff"),
    }
    for name, ((_, model), operator, method) in cases.items():
        arch, found = model.architecture, {}
        layouts = {"one": 1, "tensor": 4} | ({"fsdp": 1} if name == "gemma4" else {})
        for layout, pieces in layouts.items():
            settings = StepSettings(Request(operator), parts=("block", "attention", "mlp"), method=method)
            made = make_step(arch, mesh_for(layout, model=pieces), layout, settings)
            found[layout] = np.asarray(made.jacobians(made.place(model.params), *batch(arch.vocab), LAYER))
        one = found.pop("one")
        errors = {layout: float(np.abs(other - one).max() / np.abs(one).max()) for layout, other in found.items()}
        print(json.dumps({"family": name, "errors": errors}), flush=True)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    {"step": step, "families": families}[sys.argv[1]]()
