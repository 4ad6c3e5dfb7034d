"""Classes and functions of the user's own, by their path."""

import importlib
from typing import Any

from assent.config.problems import suggestion
from assent.errors import ConfigError


def resolve(path: str) -> Any:
    """The object named `package.module:Name`, such as an algorithm or a reward in a file of the user's own.

    Raises `ConfigError`: another form, a module that is not found or fails to import, or one without such a name.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name.isidentifier():
        raise _unresolved(path, "it is not of the form package.module:Name", "write for example my_rewards:Politeness")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        fix = "run from the folder that holds the file, or install the package"
        raise _unresolved(path, f"there is no module {error.name!r}", fix) from error
    except Exception as error:
        fix = f"run `python -c 'import {module_name}'` to see the whole error"
        raise _unresolved(path, f"importing {module_name!r} failed: {type(error).__name__}: {error}", fix) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        known = [n for n in vars(module) if not n.startswith("_")]
        raise _unresolved(path, f"{module_name!r} has no {name!r}", suggestion(name, known)) from error


def _unresolved(path: str, got: str, fix: str) -> ConfigError:
    return ConfigError(f"{path!r} names nothing", got=got, why="the recipe asks for this class by its path", fix=fix)
