"""Errors for the user. A message names the rule, the value, the place and the way out."""


class BirdclefError(Exception):
    """Base class of all errors that this project raises on purpose. The command line prints them without a traceback."""

    exit_code = 1


class Stopped(BirdclefError):
    """Work that was stopped before its end and can go on later; the exit code is that of Ctrl-C."""

    exit_code = 130


class InputError(BirdclefError):
    """Wrong input: a flag, a configuration value, a search or a data folder. Nothing was run; the exit code is 2."""

    exit_code = 2


class FileContentError(InputError):
    """A file that does not hold what it must: it is damaged, was edited by hand or was written by another version of the code."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file} cannot be read: {problem}.")
        self.file, self.problem = file, problem


class DataError(InputError):
    """Metadata or audio that cannot be used."""


class TrainingError(BirdclefError):
    """Training that failed, for example with a loss that is not finite."""


class StoreError(BirdclefError):
    """A stored stage or file that is missing or damaged, or cannot be written."""
