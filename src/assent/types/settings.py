"""Bounds on the numbers of a recipe: what is out of range is refused when it is read, not after the stages before it
have run, and not by training on the wrong thing.

Each check takes the settings by name; None is a setting that is off. Nan is outside every range.
"""


def at_least(bound: float, **settings: float | None) -> None:
    """Raises ValueError where a setting is below the bound."""
    for name, value in settings.items():
        if value is not None and not value >= bound:
            _refuse(name, f"at least {bound:g}", value)


def above(bound: float, **settings: float | None) -> None:
    """Raises ValueError where a setting is at the bound or below it."""
    for name, value in settings.items():
        if value is not None and not value > bound:
            _refuse(name, f"above {bound:g}", value)


def at_most(bound: float, **settings: float | None) -> None:
    """Raises ValueError where a setting is above the bound."""
    for name, value in settings.items():
        if value is not None and not value <= bound:
            _refuse(name, f"at most {bound:g}", value)


def below(bound: float, **settings: float | None) -> None:
    """Raises ValueError where a setting is at the bound or above it."""
    for name, value in settings.items():
        if value is not None and not value < bound:
            _refuse(name, f"below {bound:g}", value)


def _refuse(name: str, wanted: str, value: float) -> None:
    raise ValueError(f"{name} must be {wanted}; got {value}; leave it out for its default")
