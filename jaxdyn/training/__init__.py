"""Training the decoder's own parameters: texts in, a Hugging Face folder and its training history out.

Beside the seven stages: it uses stage 1 alone, and no stage uses it. Read `run` first, which puts the rest together:
`settings`, `corpus` (files to token streams), `bpe` (the tokenizer), `batches` (what a step sees), `forward` (the
loss), `optimizer`, `checkpoints`, `curve`, `evaluation`, `export`.
"""

from jaxdyn.training.evaluation import evaluate as evaluate
from jaxdyn.training.run import Outcome as Outcome
from jaxdyn.training.run import kept_steps as kept_steps
from jaxdyn.training.run import model_at as model_at
from jaxdyn.training.run import train as train
from jaxdyn.training.settings import TrainSettings as TrainSettings

__all__ = ["Outcome", "TrainSettings", "evaluate", "kept_steps", "model_at", "train"]
