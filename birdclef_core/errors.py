"""What can go wrong, as the user is told of it: a message names the rule, the value, the place and the way out."""


class BirdclefError(Exception):
    """The root of every error that this project raises on purpose; the command line prints it without a traceback."""

    exit_code = 1


class InputError(BirdclefError):
    """Wrong input: a flag, a configuration value, a search or a data folder. Nothing was run, exit code 2."""

    exit_code = 2


class FileContentError(InputError):
    """A file that does not hold what it must: it is damaged, was edited by hand or was written by another version of the code."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file} cannot be read: {problem}.")
        self.file, self.problem = file, problem


class DataError(InputError):
    """Metadata or audio that cannot be used as they are."""


class TrainingError(BirdclefError):
    """A stage that failed while it trained, such as a loss that is not a number."""


class StoreError(BirdclefError):
    """A store entry that is missing, damaged or cannot be written."""
