"""The model that comes with jaxdyn, and prompts written for it: two places in the package, nothing to download.

`README.md` beside this file says how the model was trained and on what, and what it scores.
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
"""Hugging Face folder: config.json, model.safetensors, tokenizer.json."""

NAME = "jaxdyn-embedded"
"""What a store calls it: the same wherever the package is installed."""

PROMPTS = FOLDER / "prompts.json"
"""A dozen prompts, a list of strings: prose, dialogue, code, arithmetic, a list."""
