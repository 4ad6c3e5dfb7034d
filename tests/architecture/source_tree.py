"""The checkout as data: files, modules, syntax trees, what is imported and what is named."""

import ast
import functools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "assent"
MODULES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def room_of(path: Path) -> str:
    """First part of a module's place in the package: `rollout` for rollout/native.py, `types` for types.py."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@dataclass(frozen=True)
class Import:
    """One imported module; `lazy` when it happens inside a function, `typing` when only a type checker sees it."""

    module: str
    line: int
    lazy: bool
    typing: bool


def imports_of(path: Path) -> list[Import]:
    package = list(path.relative_to(PACKAGE.parent).parts[:-1])
    return list(_imports(tree_of(path), package, lazy=False, typing=False))


def _imports(node: ast.AST, package: list[str], *, lazy: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, lazy, typing) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            above = package[: len(package) + 1 - child.level] if child.level else []
            module = ".".join([*above, *([child.module] if child.module else [])])
            names = [f"{module}.{a.name}" for a in child.names] if module == "assent" else [module]
            yield from (Import(n, child.lineno, lazy, typing) for n in names)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(child, package, lazy=True, typing=typing)
        else:
            guarded = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield from _imports(child, package, lazy=lazy, typing=typing or guarded)


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def bound_names(path: Path) -> Iterator[tuple[int, str]]:
    """Identifiers that the file itself chose: definitions, arguments, assigned names; not what others called theirs."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


@functools.cache
def tracked_files() -> list[Path]:
    """What git keeps, or would keep."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


@functools.cache
def pages() -> list[Path]:
    """Every Markdown page of the checkout."""
    return [p for p in tracked_files() if p.suffix == ".md"]
