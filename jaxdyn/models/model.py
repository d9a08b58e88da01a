"""Stage 1 of 7: a model: its description, its parameters, its tokenizer and where it came from."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, Sharding
from jax.typing import ArrayLike

from jaxdyn.errors import InputError
from jaxdyn.models import decoder, parameters
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.generate import generate


@dataclass(frozen=True, eq=False)
class Model:
    """A decoder with its weights.

    Attributes
    ----------
    architecture, params
        The description and the nested parameters (see ``parameters.shapes``).
    tokenizer
        A transformers tokenizer, or None.
    source, revision
        Name or folder the model was loaded from, and the commit where it came from the hub.
    weights_hash
        sha256 (hex) of the checkpoint's tensors, or of the parameters if they were drawn at random.
    stop_ids
        Token ids that end a generated text.
    """

    architecture: Architecture
    params: decoder.Params
    tokenizer: Any | None
    source: str
    revision: str | None
    weights_hash: str
    stop_ids: tuple[int, ...] = ()

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the computation: float32, or float64 where the weights are float64."""
        return decoder.compute_dtype(self.params)

    @property
    def mesh(self) -> dict[str, int] | None:
        """Axes and sizes of the mesh that the parameters are split over, or None on one device."""
        sharding = jax.tree.leaves(self.params)[0].sharding
        return dict(sharding.mesh.shape) if isinstance(sharding, NamedSharding) else None

    @property
    def adds_bos(self) -> bool:
        """Whether ``encode`` puts the beginning-of-sequence token in front."""
        bos = None if self.tokenizer is None else self.tokenizer.bos_token_id
        return bos is not None and self.encode(["a"])[0][:1] == [bos]

    def logits(self, token_ids: ArrayLike | Sequence[Any]) -> jax.Array:
        """Return next-token logits.

        Parameters
        ----------
        token_ids
            (B, T) integers, 0 <= id < V, T at most the context. Padding on the right changes nothing to its left.

        Returns
        -------
        Array
            (B, T, V), unnormalised log probabilities, compute dtype.
        """
        return decoder.logits(self.architecture, self.params, jnp.asarray(self.check_ids(token_ids, ndim=2)))

    def check_ids(self, token_ids: ArrayLike | Sequence[Any], *, ndim: int) -> np.ndarray:
        """Return token ids as an integer array of ``ndim`` axes, none of them empty, in range, within the context."""
        ids = np.asarray(token_ids)
        arch = self.architecture
        if ids.ndim != ndim or ids.size == 0 or not np.issubdtype(ids.dtype, np.integer):
            msg = f"token_ids: got {ids.dtype} of shape {ids.shape}, allowed integers with {ndim} axes, not empty"
            raise InputError(msg)
        if ids.min() < 0 or ids.max() >= arch.vocab:
            wrong = ids.min() if ids.min() < 0 else ids.max()
            msg = f"token_ids: got {wrong}, allowed 0 to {arch.vocab - 1}; encode the text with this model's tokenizer"
            raise InputError(msg)
        if ids.shape[-1] > arch.context:
            msg = f"token_ids: got {ids.shape[-1]} tokens, the model's context is {arch.context}; shorten the text"
            raise InputError(msg)
        return ids

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into token ids, with the special tokens the tokenizer adds itself (see ``adds_bos``).

        Parameters
        ----------
        texts
            Strings; the first empty one is an ``InputError``.

        Returns
        -------
        list of list of int
            Ids of each text, of its own length. Without a tokenizer: an ``InputError``.
        """
        if isinstance(texts, str):
            msg = f"texts: got one string ({texts[:20]!r}), allowed a list of strings; put it in a list"
            raise InputError(msg)
        for index, text in enumerate(texts):
            if not isinstance(text, str) or not text:
                msg = f"texts: text {index} is {text!r}, allowed strings that are not empty; remove it"
                raise InputError(msg)
        tokenizer = self._tokenizer()
        encoded = [tokenizer.encode(text, verbose=False) for text in texts]
        for text, ids in zip(texts, encoded, strict=True):
            if not ids or max(ids) >= self.architecture.vocab:
                got = f"ids up to {max(ids)}" if ids else "no token"
                msg = (
                    f"texts: the tokenizer makes {got} of {text[:20]!r}, allowed are ids below "
                    f"{self.architecture.vocab}, at least one; use the tokenizer of this model, or another text"
                )
                raise InputError(msg)
        return encoded

    def decode(self, token_ids: Sequence[int] | np.ndarray) -> str:
        """Turn token ids into text, special tokens left out."""
        return self._tokenizer().decode(np.asarray(token_ids).tolist(), skip_special_tokens=True)

    @overload
    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 64,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int = 64,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> list[int]: ...

    def generate(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 64,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> str | list[int]:
        """Continue a prompt.

        Parameters
        ----------
        prompt
            Text, or token ids.
        max_new_tokens
            At most so many tokens are added; with the prompt they must fit the context.
        temperature
            0 takes the most likely token each time; above 0, tokens are drawn from softmax(logits / temperature).
        top_k
            Draw among the k most likely tokens only; None is all. Has no effect at temperature 0, so it is refused.
        seed
            Seed of the draws.

        Returns
        -------
        str or list of int
            Prompt and continuation, as text for a text and as ids for ids. It ends after the first of ``stop_ids``.
        """
        ids = self.encode([prompt])[0] if isinstance(prompt, str) else prompt
        ids = self.check_ids(ids, ndim=1).tolist()
        new = generate(
            self.architecture,
            self.params,
            ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            stop_ids=self.stop_ids,
        )
        return self.decode(ids + new) if isinstance(prompt, str) else ids + new

    def astype(self, dtype: str) -> "Model":
        """Return the model with its weights in another dtype: float64 after bfloat16 computes exactly with those."""
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), self.params)
        return dataclasses.replace(self, params=params)

    def outline(self) -> "Model":
        """Return the model without its weights, their shapes in their place: enough for ``encode``, ``initialised``."""
        params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self.params)
        return dataclasses.replace(self, params=params)

    def initialised(self, seed: int) -> "Model":
        """Return the same architecture and tokenizer with random parameters of the same dtype, by the family's rule.

        They are drawn on the device, leaf by leaf, and split over the mesh that the model's own are split over.
        """
        dtype = self.params["embed"]["tokens"].dtype.name
        placed = {path: leaf.sharding for path, leaf in parameters.flatten(self.params).items()} if self.mesh else None
        random = random_model(self.architecture, seed=seed, dtype=dtype, shardings=placed)
        source = f"{self.source} (random initialisation, seed {seed})"
        return dataclasses.replace(random, source=source, tokenizer=self.tokenizer, stop_ids=self.stop_ids)

    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            msg = f"text: {self.source} has no tokenizer (tokenizer.json); add it to the folder, or give token ids"
            raise InputError(msg)
        return self.tokenizer


def random_model(
    arch: Architecture, *, seed: int, dtype: str = "float32", shardings: Mapping[str, Sharding] | None = None
) -> Model:
    """Return a model with random parameters, drawn by its family's own rule.

    Parameters
    ----------
    arch
        The description; ``initializer_range`` and ``initializer`` give the rule.
    seed
        Seed of the draws.
    dtype
        Dtype of the parameters.
    shardings
        Where each parameter goes, by its path; None is jax's own choice of one device.

    Returns
    -------
    Model
        Without tokenizer; ``weights_hash`` is that of the drawn parameters.
    """
    params = parameters.initialise(arch, seed, dtype=dtype, shardings=shardings)
    digest = hashlib.sha256()
    for path, leaf in sorted(parameters.flatten(params).items()):
        digest.update(f"{path} {leaf.dtype.name} {leaf.shape} ".encode())
        for piece in leaf if path.startswith("blocks/") else (leaf,):  # jax keeps a host copy of what is read whole
            digest.update(np.ascontiguousarray(piece).tobytes())
    return Model(arch, params, None, f"random {arch.family}, seed {seed}", None, digest.hexdigest())
