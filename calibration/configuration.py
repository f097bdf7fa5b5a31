"""bitladder.toml, for the steps that need it: reading it takes msgspec and pydantic, which not every step has."""

from __future__ import annotations

from calibration.errors import InputError
from dispatcher.errors import ConfigError
from dispatcher.sections import Settings
from dispatcher.settings import load_settings


def load_configuration(file: str | None) -> Settings:
    """Read the configuration as every process of bitladder does.

    Raises:
        InputError: it is missing or wrong.

    """
    try:
        return load_settings(file).settings
    except ConfigError as error:
        raise InputError(str(error)) from error
