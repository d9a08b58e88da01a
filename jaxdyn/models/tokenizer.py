"""Stage 1 of 7: the tokenizer of a model folder, through transformers; no code of the model's is run."""

from pathlib import Path
from typing import Any

from jaxdyn import embedded
from jaxdyn.errors import InputError

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def load_tokenizer(folder: Path) -> Any | None:
    """Return the folder's tokenizer, or None where it has no tokenizer file; a broken one is an ``InputError``."""
    if not any((folder / name).is_file() for name in FILES):
        return None
    try:
        if folder == embedded.FOLDER:  # its class is known: the choice of one by AutoTokenizer imports torch
            from transformers import PreTrainedTokenizerFast

            return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        from transformers import AutoTokenizer  # slow to import, and needed only here

        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers raise bare Exception for damaged files
        first = str(error).strip().split("\n")[0]
        msg = f"tokenizer: cannot read the tokenizer in {folder} ({type(error).__name__}: {first}); download it again"
        raise InputError(msg) from error
