"""Everything that decides what a training run computes, but the texts: checked once, stored, compared on resuming."""

from dataclasses import dataclass

from jaxdyn.errors import InputError
from jaxdyn.models.architecture import Architecture
from jaxdyn.models.weights import architecture_of

BOS = 0
"""Id of the one special token, which begins every document and, in a generated text, ends it."""

COMPUTE_DTYPES = ("float32", "bfloat16")
SAVE_DTYPES = ("float32", "bfloat16", "float16")
SMALLEST_VOCAB = 257  # 256 bytes and the special token


@dataclass(frozen=True)
class TrainSettings:
    """A Llama-style decoder and how it is trained.

    Attributes
    ----------
    width, layers, heads, kv_heads, ff_dim, context
        Sizes D, L, H, G, F and the tokens of a training window. The head is tied to the token embedding.
    vocab
        Size of the byte-level BPE vocabulary asked for, at least 257; a short text may give fewer merges, and the
        model then has the vocabulary found.
    steps, batch
        Optimizer steps, and windows of ``context`` tokens in each.
    learning_rate, warmup
        Peak rate; it rises linearly over ``warmup`` steps and falls along a cosine to a tenth of the peak.
    weight_decay, clip
        AdamW's decay (matrices and embedding only), and the largest norm of the gradient.
    dtype
        "float32", or "bfloat16" for the products of the linear maps; parameters, norms, attention and loss are float32.
    save_dtype
        Dtype of the exported weights.
    seed
        Of the initial parameters and the order of the data.
    validate_every, save_every
        Steps between validations and between checkpoints kept for resuming.
    """

    width: int = 128
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    ff_dim: int = 344
    vocab: int = 4096
    context: int = 256
    steps: int = 2000
    batch: int = 16
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    dtype: str = "float32"
    save_dtype: str = "float32"
    seed: int = 0
    validate_every: int = 100
    save_every: int = 50

    def __post_init__(self) -> None:
        """Refuse what cannot be trained, naming the argument."""
        for name in ("layers", "heads", "kv_heads", "ff_dim", "steps", "batch", "validate_every", "save_every"):
            _at_least(name, getattr(self, name), 1)
        _at_least("context", self.context, 2)
        _at_least("vocab", self.vocab, SMALLEST_VOCAB)
        _at_least("seed", self.seed, 0)
        if self.width < 1 or self.width % (2 * self.heads):
            allowed = f"multiples of {2 * self.heads}, since RoPE turns pairs"
            msg = f"width: got {self.width} with {self.heads} heads; allowed {allowed}"
            raise InputError(msg)
        if self.heads % self.kv_heads:
            msg = f"kv-heads: got {self.kv_heads}; allowed divisors of heads, {self.heads}"
            raise InputError(msg)
        if not 0 <= self.warmup < self.steps:
            msg = f"warmup: got {self.warmup}; allowed 0 to {self.steps - 1}, fewer than the steps"
            raise InputError(msg)
        for name, value, smallest in (
            ("learning-rate", self.learning_rate, "above 0"),
            ("clip", self.clip, "above 0"),
            ("weight-decay", self.weight_decay, "0 or above"),
        ):
            if not (0 < value < float("inf") or (value == 0 and smallest == "0 or above")):
                msg = f"{name}: got {value}; allowed a finite number {smallest}"
                raise InputError(msg)
        for name, value, allowed in (
            ("dtype", self.dtype, COMPUTE_DTYPES),
            ("save-dtype", self.save_dtype, SAVE_DTYPES),
        ):
            if value not in allowed:
                msg = f"{name}: got {value!r}; allowed {', '.join(allowed)}"
                raise InputError(msg)

    def config(self, vocab: int) -> dict[str, object]:
        """Return the Hugging Face config.json of the model, for a vocabulary of the size the text gave."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.width,
            "intermediate_size": self.ff_dim,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.width // self.heads,
            "vocab_size": vocab,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "initializer_range": 0.02,
            "bos_token_id": BOS,
            "eos_token_id": BOS,
            "dtype": self.save_dtype,
        }

    def architecture(self, vocab: int) -> Architecture:
        """Return the decoder's description, read from `config` as any loaded model's is."""
        return architecture_of(self.config(vocab))


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        msg = f"{name.replace('_', '-')}: got {value}; allowed {least} or above"
        raise InputError(msg)
