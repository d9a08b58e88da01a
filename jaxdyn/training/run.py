"""A training run: texts to tokenizer, steps, checkpoints and curve, then the Hugging Face folder and its held-out loss.

A run killed at any moment goes on from its newest checkpoint with the same command and `resume`, to the same bits on
the same machine and versions: the data order depends on seed and step only, and the curve holds no times. The folder:
`training.json` (settings, texts, versions), `curve.csv`, `checkpoints/`, `model/` (Hugging Face), and at the end
`evaluation.json`.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from jaxdyn.errors import InputError
from jaxdyn.models import Architecture, Model, load
from jaxdyn.models.tokenizer import load_tokenizer
from jaxdyn.models.weights import assemble
from jaxdyn.training import batches, bpe, checkpoints, corpus, curve, evaluation, export, folder, optimizer
from jaxdyn.training.folder import MODEL
from jaxdyn.training.progress import TrainingBar
from jaxdyn.training.settings import BOS, TrainSettings

EVALUATION = "evaluation.json"
HELD_OUT_SHARE = "last 5 %"
VALIDATION_PIECES = 64
FLUSH = 10  # steps whose losses wait on the device before they are written


@dataclass(frozen=True)
class Outcome:
    """What a run gave: its Hugging Face folder, the steps, the parameters, held-out losses, and the speed it had.

    ``held_out`` is {name: {"nats_per_token", "nats_per_byte", "tokens", "bytes"}} of the exported weights;
    ``tokens_per_second`` counts this process's steps but the first (which compiles), without validation and
    checkpoints, and is None where it made fewer than two.
    """

    folder: Path
    steps: int
    parameters: int
    held_out: dict[str, dict[str, float]]
    tokens_per_second: float | None


def train(
    texts: Sequence[str],
    settings: TrainSettings | None = None,
    *,
    out: str | Path,
    held_out: Sequence[str] = (),
    resume: bool = False,
    progress: TrainingBar | None = None,
) -> Outcome:
    """Train a decoder and its tokenizer on texts.

    Minimises the mean cross-entropy of the next token over windows of the texts (see `forward.token_losses`).

    Parameters
    ----------
    texts
        Files to train on: .txt, one document; .json, a list of documents, or ``FILE.json[a:b]``, a slice of it.
    settings
        Sizes and optimisation; the default sizes are those of the embedded model.
    out
        Folder to make; one that holds a run needs ``resume``.
    held_out
        Files never trained on, whose loss is reported by name; without any, the last 5 % of the tokens are held out
        (the tokenizer sees those).
    resume
        Go on with the run in ``out``, which must have the same settings, texts and versions.
    progress
        A bar to report to; None reports nothing.

    Returns
    -------
    Outcome
        The Hugging Face folder ``out/model`` and what it scores. Raises `InputError` for texts that cannot be used, a
        folder that cannot, and a loss that is no longer finite. Cost: about 6 P flops a token for P parameters, and
        16 P bytes (parameters, two moments, gradient) besides the activations.
    """
    settings, out = settings or TrainSettings(), Path(out)
    progress = progress or TrainingBar(enabled=False)
    training, held = corpus.read_all(texts, "texts"), corpus.read_all(held_out, "held-out")
    if not training:
        msg = "texts: got none; give at least one .txt or .json file"
        raise InputError(msg)
    both = {text.sha256: text.name for text in training}.keys() & {text.sha256 for text in held}
    if both:
        names = ", ".join(text.name for text in held if text.sha256 in both)
        msg = f"held-out: {names} is among the texts to train on; hold out something else"
        raise InputError(msg)
    tokenizer = folder.open_run(out, folder.describe(settings, training, held), training, settings, resume=resume)
    arch = settings.architecture(tokenizer.get_vocab_size())
    documents = corpus.encode(tokenizer, [document for text in training for document in text.documents])
    validation = {text.name: corpus.encode(tokenizer, text.documents) for text in held}
    if not held:
        documents, validation[HELD_OUT_SHARE] = corpus.split(documents)
    stream = corpus.stream(documents, context=settings.context)
    parts = {name: evaluation.pieces(documents, context=settings.context) for name, documents in validation.items()}
    with checkpoints.Checkpoints(out, steps=settings.steps) as saved, progress:
        params, rate = _steps(arch, settings, stream, parts, out, saved, progress)
    export.export(arch, params, settings.config(arch.vocab), out / MODEL)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    scores = _score(load(out / MODEL), validation, tokenizer)
    (out / EVALUATION).write_text(json.dumps({"parameters": size, "held_out": scores}, indent=2) + "\n")
    return Outcome(out / MODEL, settings.steps, size, scores, rate)


def model_at(out: str | Path, step: int) -> Model:
    """Return the model of a run's checkpoint.

    Parameters
    ----------
    out
        Folder of a run, finished or not.
    step
        Optimizer steps done: 0, a power of two below the last, the last, or the newest; another is an ``InputError``
        that lists those there are.

    Returns
    -------
    Model
        float32, before any rounding of the export, with the run's tokenizer.
    """
    out = Path(out)
    settings = TrainSettings(**folder.read_record(out)["settings"])
    arch, tokenizer = description_at(out)
    like = jax.eval_shape(lambda: optimizer.start(arch, settings))
    with checkpoints.Checkpoints(out, steps=settings.steps, read_only=True) as saved:
        params = saved.restore(step, like)["params"]
    tensors = export.tensors(arch, params, dtype="float32")
    params, digest = assemble(arch, {key: tensor.shape for key, tensor in tensors.items()}, tensors.__getitem__)
    return Model(arch, params, tokenizer, f"{out}, step {step}", None, digest, stop_ids=(BOS,))


def description_at(out: str | Path) -> tuple[Architecture, Any]:
    """Return the description and the tokenizer that all checkpoints of a run share; no weights are read."""
    out = Path(out)
    settings = TrainSettings(**folder.read_record(out)["settings"])
    arch = settings.architecture(bpe.load_tokenizer(out / MODEL).get_vocab_size())
    return arch, load_tokenizer(out / MODEL)


def kept_steps(out: str | Path) -> list[int]:
    """List the steps whose checkpoints a run keeps for good and has reached: 0, the powers of two, the last."""
    settings = TrainSettings(**folder.read_record(Path(out))["settings"])
    with checkpoints.Checkpoints(Path(out), steps=settings.steps, read_only=True) as saved:
        return [step for step in checkpoints.log_spaced(settings.steps) if step in saved.steps]


def _steps(arch, settings, stream, parts, out, saved, progress):
    """Go from the newest checkpoint to the last step; the parameters there, and the tokens a second on the way."""
    state, done = optimizer.start(arch, settings), saved.latest
    rows = curve.Curve(out, tuple(parts), done=done)
    rates, sample = optimizer.schedule(settings), {name: _some(every) for name, every in parts.items()}

    def validate():
        return [evaluation.evaluate(arch, state["params"], some).per_token for some in sample.values()]

    if done is None:
        rows.append([(0, 0, "", "", *validate())])
        saved.save(0, state)
        done = 0
    else:
        state = saved.restore(done, state)
    progress.begin(settings.steps, done=done)
    step, kept = optimizer.make_step(arch, settings), set(checkpoints.log_spaced(settings.steps))
    window_tokens, clock, pending = settings.batch * settings.context, _Clock(), []
    for number in range(done, settings.steps):
        windows = batches.batch(stream, number, seed=settings.seed, size=settings.batch, context=settings.context)
        state, loss = step(state, jnp.asarray(windows))
        pending.append((number + 1, (number + 1) * window_tokens, float(rates(number)), loss))
        due = number + 1 == settings.steps
        validating = due or (number + 1) % settings.validate_every == 0
        saving = due or (number + 1) % settings.save_every == 0 or number + 1 in kept
        if not (validating or saving or clock.first or len(pending) == FLUSH):
            continue
        losses = _finite([float(row[-1]) for row in pending], number + 1)
        clock.add(len(pending))
        written = [[*row[:-1], loss, *([""] * len(parts))] for row, loss in zip(pending, losses, strict=True)]
        if validating:
            written[-1][-len(parts) :] = validate()
        rows.append(written)
        pending.clear()
        if saving:
            saved.save(number + 1, state)
        progress.update(number + 1, losses[-1], clock.rate * window_tokens)
        clock.restart()
    return state["params"], clock.rate * window_tokens or None


class _Clock:
    """Steps a second over blocks of steps, the first step of the process left out."""

    def __init__(self) -> None:
        self.first = True
        self._steps, self._seconds, self._since = 0, 0.0, time.perf_counter()

    def add(self, steps: int) -> None:
        if not self.first:
            self._steps += steps
            self._seconds += time.perf_counter() - self._since
        self.first = False

    def restart(self) -> None:
        self._since = time.perf_counter()

    @property
    def rate(self) -> float:
        return self._steps / self._seconds if self._steps else 0.0


def _finite(losses: list[float], step: int) -> list[float]:
    if not np.isfinite(losses).all():
        msg = f"learning-rate: the loss is not finite at step {step}; start again with a smaller rate or more warm-up"
        raise InputError(msg)
    return losses


def _some(parts: list[np.ndarray]) -> list[np.ndarray]:
    """At most 64 pieces, spread evenly: what is validated on the way."""
    return parts[:: -(-len(parts) // VALIDATION_PIECES)]


def _score(model: Model, validation: dict, tokenizer: Tokenizer) -> dict[str, dict[str, float]]:
    """Loss of the exported weights on every held-out token."""
    scores = {}
    for name, documents in validation.items():
        parts = evaluation.pieces(documents, context=model.architecture.context)
        loss = evaluation.evaluate(model.architecture, model.params, parts)
        size = sum(map(_bytes_of(tokenizer), documents))
        scores[name] = {
            "nats_per_token": loss.per_token,
            "nats_per_byte": loss.nats / size,
            "tokens": loss.tokens,
            "bytes": size,
        }
    return scores


def _bytes_of(tokenizer: Tokenizer):
    """A function from ids to the bytes they stand for: each character of a byte-level token is one byte."""
    lengths = np.asarray([len(tokenizer.id_to_token(i) or "") for i in range(tokenizer.get_vocab_size())])
    return lambda ids: int(lengths[ids].sum())
