"""The error tree of calibration, with the exit code of each.

CalibrationError                      1   something went wrong while a checkpoint was made
├── InputError                        2   an option, a file or the configuration is wrong
│   ├── BadReportError                2   a report that cannot be read, or says what cannot be
│   └── SourceError                   2   the prompts' source is empty, unreachable or denied
├── RecipeError                       2   a recipe does not fit the model, or there is none of that name
│   └── UnknownTierError              2   names the tier and lists those that exist
├── WrongEnvironmentError             3   a library of the quantizer environment is missing or broken
│   └── MissingModelError             3   the package that carries the model is missing, or its file is another
├── DiskFullError                     4   too little room, seen before or while writing
├── BadCheckpointError                5   measured and found wanting; it is not kept
├── EngineFailedError                 6   the engine does not start on a checkpoint, or breaks while it is measured
├── UnprovenError                     1   the labels cannot promise it; no policy was written
├── ProposalRefusedError           1   something was changed since it was proposed or applied; nothing was changed
└── PublishRefusedError               1   a tier changed, failed its inspection or lost too much; nothing was changed
"""

from __future__ import annotations


class CalibrationError(Exception):
    """Base of all errors of calibration; its message is for the user."""

    exit_code = 1


class InputError(CalibrationError):
    """An argument, a file or the configuration is wrong; the message names what is expected."""

    exit_code = 2


class BadReportError(InputError):
    """A file is missing, or is no report of an evaluation."""


class SourceError(InputError):
    """The source of prompts is empty, unreachable, or access is denied."""


class RecipeError(CalibrationError):
    """A recipe cannot be carried out on this model."""

    exit_code = 2


class UnknownTierError(RecipeError):
    """There is no recipe for a tier of this name."""


class WrongEnvironmentError(CalibrationError):
    """A library that makes checkpoints cannot be imported here."""

    exit_code = 3


class MissingModelError(WrongEnvironmentError):
    """The model's weights are not on this machine."""


class DiskFullError(CalibrationError):
    """There is not enough room for a checkpoint."""

    exit_code = 4


class BadCheckpointError(CalibrationError):
    """A checkpoint was made, measured, and is not good enough to be served."""

    exit_code = 5


class EngineFailedError(CalibrationError):
    """The engine cannot start on a checkpoint, or failed while it was measured."""

    exit_code = 6


class UnprovenError(CalibrationError):
    """The labels are too few, or lose too much, for the promise."""


class ProposalRefusedError(CalibrationError):
    """What a proposal would change, or take back, is not as it was; nothing was changed."""


class PublishRefusedError(CalibrationError):
    """A tier must not be published, or not be gone back to."""
