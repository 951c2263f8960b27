"""Checks of the values of settings, which name the rule and the value that breaks it."""

from dataclasses import fields

from birdclef_core.errors import InputError


def require(condition: bool, rule: str, **values: object) -> None:
    """Raise InputError with the rule and the values if `condition` does not hold."""
    if not condition:
        raise InputError(f"{rule} must hold, but got {', '.join(f'{name}={value!r}' for name, value in values.items())}.")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError if `value` is none of the choices."""
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, but got {value!r}.")


def require_probabilities(config: object) -> None:
    """Raise InputError if a field of the config that is named as a probability is not between 0 and 1."""
    for item in fields(config):  # type: ignore[arg-type]
        if item.name == "prob" or item.name.endswith("_prob"):
            value = getattr(config, item.name)
            require(0 <= value <= 1, f"0 <= {item.name} <= 1", **{item.name: value})
