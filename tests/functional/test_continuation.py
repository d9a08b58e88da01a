"""Single rows through the rest of a model, against whole sequences through the same blocks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn import functional
from jaxdyn.activations import context_at
from jaxdyn.models import decoder
from jaxdyn.models.stream import Stream
from tests.models.tiny import TINY, random_ids

SIZES = {"hidden_size": 16, "intermediate_size": 24}
GEMMA4 = {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "sliding_window": 3} | SIZES
GEMMA4["layer_types"] = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]


def test_rows_do_what_whole_sequences_do(rng):
    """In a model with shared keys and values, windows and per-layer embeddings; plain ones are in test_run.py."""
    _, model = TINY["gemma4_text"](**GEMMA4)
    arch, start = model.architecture, 1
    ids, lengths = random_ids(model, 2, 7), jnp.asarray([7, 6])
    prompt, position = jnp.asarray([0, 1, 1, 0]), jnp.asarray([6, 5, 2, 0])
    contexts = context_at(arch, model.params, jnp.asarray(ids), lengths, start)
    states = contexts.x[prompt, position] + jnp.asarray(rng.standard_normal((4, arch.width)))
    rows = functional.rows_at(contexts, prompt, position)
    states = states.at[0].set(rows.x[0, 0])  # the first is not moved
    rows = Stream(states[:, None], rows.layer_inputs, rows.keys, rows.values)
    final = functional.run_on(model, contexts, rows, prompt, position, lengths, layer=start)
    advance = jax.jit(partial(decoder.advance, arch))
    for row in range(4):
        b, t = int(prompt[row]), int(position[row])
        stream = jax.tree.map(lambda leaf, b=b: leaf[b : b + 1], contexts)
        stream = Stream(stream.x.at[0, t].set(states[row]), stream.layer_inputs, stream.keys, stream.values)
        for layer in range(start, arch.layers):
            stream = advance(decoder.layer_weights(model.params, layer), stream, lengths[b : b + 1])[1]
        np.testing.assert_allclose(final[row], stream.x[0, t], atol=1e-11, err_msg=f"row {row}")
    logits = decoder.unembed(arch, model.params, final[0])
    np.testing.assert_allclose(logits, model.logits(ids)[0, 6], atol=1e-10)
    assert np.max(np.abs(final[1] - decoder.residual_stream(arch, model.params, jnp.asarray(ids))[2][1, 5])) > 0.1
