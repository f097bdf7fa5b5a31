"""Find the model's weights among the installed packages, without importing the package that carries them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from calibration.errors import MissingModelError
from calibration.manifest import file_digest
from calibration.recipe import SOURCE, Source


def find_source(source: Source = SOURCE) -> Path:
    """Return the path of the weights that the package carries, or raise MissingModelError."""
    wanted = f"{source.package}=={source.version}"
    try:
        package = metadata.distribution(source.package)
    except metadata.PackageNotFoundError as error:
        raise MissingModelError(f"the model comes in {wanted}, which is not installed: `make quantize-env`") from error
    path = Path(str(package.locate_file(source.file)))
    if not path.is_file():
        raise MissingModelError(f"{path} is missing; install {wanted} again: `make quantize-env`")
    if file_digest(path) != source.sha256:
        raise MissingModelError(f"{path} is not the file of {wanted}; install it again: `make quantize-env`")
    return path
