"""What an error of an MLflow server means: it refuses the user, it refuses what it was asked for, or it is away."""

import os
import re
from collections.abc import Sequence

from mlflow.exceptions import MlflowException

from sweeps.tracking import mlflow_views as views
from sweeps.tracking.delivery import Denied, Rejected

_REFUSALS = {"BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "MALFORMED_REQUEST", "RESOURCE_DOES_NOT_EXIST"}
_NOT_KNOWN = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}


def meaning(error: MlflowException, url: str, experiments: Sequence[str]) -> Exception:
    """Return the error of a sink (`delivery.Sink`) that an error of the server at `url` stands for."""
    if denial := denial_of(error, experiments):
        return Denied(denial)
    if error.error_code in _REFUSALS:
        return Rejected(str(error))
    return ConnectionError(f"{url}: {_reason(error)}")


def describe(error: MlflowException) -> str:
    """Return why the server did not do what it was asked for, in one line."""
    return denial_of(error, [views.SWEEPS_EXPERIMENT]) or _reason(error)


def denial_of(error: MlflowException, experiments: Sequence[str]) -> str:
    """Return what the user lacks, if the server refuses the user; else an empty text."""
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    if error.error_code in _NOT_KNOWN:
        who = f"user {user!r} or the password is wrong" if user else "it asks for a user and a password, and none is given"
        return (
            f"{who} (401). They are read from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or from ~/.mlflow/credentials"
        )
    if error.error_code != "PERMISSION_DENIED":
        return ""
    if "Host header" in str(error):
        return f"{_reason(error)} (403): its --allowed-hosts must have the host of --tracking-uri"
    names = " and ".join(repr(name) for name in experiments)
    return (
        f"user {user!r} needs the right EDIT on the experiment {names} (403), because another user has made it. Its owner or an "
        "administrator can give it (mlflow/README.md)"
    )


def _reason(error: MlflowException) -> str:
    """Return the reason at the end of MLflow's long message about a server that cannot be reached; else the message's beginning."""
    message = str(error)
    return re.sub(r"['\"]\)+$", "", message.rpartition(": ")[2]) if "Caused by" in message else message[:300]
