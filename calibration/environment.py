"""What calibration reads from the environment, and what it sets there for the libraries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bitladder.settings.paths import checkpoint_cache

# Set before the libraries are imported: no network, and no logs or progress bars of theirs, because the commands show
# their own progress.
LIBRARY_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "LOGURU_AUTOINIT": "False",
    "LLM_COMPRESSOR_LOG_DISABLED": "true",
}


def example_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the example's checkpoints, in the checkpoint cache."""
    return checkpoint_cache(environ) / "smollm2"
