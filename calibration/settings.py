"""What calibration reads from the environment, and what it tells the libraries through it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bitladder.settings.paths import checkpoint_cache

# For the libraries underneath, set before they are imported: no network, and none of their logs and bars, because
# the steps of the command say what is being done.
LIBRARY_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "LOGURU_AUTOINIT": "False",
    "LLM_COMPRESSOR_LOG_DISABLED": "true",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where checkpoints go unless the command line says otherwise."""

    cache: Path

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Build from a mapping such as os.environ."""
        return cls(cache=checkpoint_cache(environ) / "smollm2")
