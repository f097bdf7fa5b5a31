"""bitladder.toml, for the steps that need it: reading it takes msgspec and pydantic, which not every step has."""

from __future__ import annotations

from bitladder.errors import ConfigError
from bitladder.settings.load import load_settings
from bitladder.settings.sections import Settings
from calibration.errors import InputError


def load_configuration(file: str | None) -> Settings:
    """Read the configuration as every process of bitladder does.

    Raises:
        InputError: it is missing or wrong.

    """
    try:
        return load_settings(file).settings
    except ConfigError as error:
        raise InputError(str(error)) from error
