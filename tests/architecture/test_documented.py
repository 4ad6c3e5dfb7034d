"""The public mathematics is documented, and the pages name only what exists."""

import ast
import re
from itertools import chain

import pytest
from source_tree import PACKAGE, ROOT, pages, shown, tree_of
from tests.mutation.slips import SLIPS

from assent.config import Frozen
from assent.data import formats as files
from assent.pipeline.recipe import parse_recipe
from assent.stages import TABLE

MATHEMATICS = sorted(p for p in (PACKAGE / "functional").glob("*.py") if not p.name.startswith("_"))
SOURCE = re.compile(r"[Ss]ource|arXiv|et al|\b\d{4}\.\d{5}\b")
BLOCK = re.compile(r"^```\w*\n.*?^```$", re.M | re.S)
BY_DEFINITION = {
    "masked_mean",
    "token_logprobs",
    "entropy",
    "linear_token_logprobs",
    "linear_token_logprobs_and_entropy",
    "fingerprint",
    "explained_variance",
}
"""What any textbook defines, or nobody: there is no paper to name."""


def public_functions():
    for path in MATHEMATICS:
        for node in tree_of(path).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield pytest.param(path, node, id=f"{path.stem}.{node.name}")


@pytest.mark.parametrize(("path", "function"), list(public_functions()))
def test_functional_is_documented(path, function):
    """What it computes, its arguments or the function that it shares them with, and the source."""
    text = ast.get_docstring(function) or ""
    assert len(text) > 40
    assert "Args:" in text or re.search(r"[Aa]rgument[^.]* as `\w+`", text), text
    if function.name not in BY_DEFINITION:
        assert SOURCE.search(text) or SOURCE.search(ast.get_docstring(tree_of(path)) or ""), "name the source"


def test_by_definition_is_not_a_way_out():
    sourced = {p.values[1].name for p in public_functions() if SOURCE.search(ast.get_docstring(p.values[1]) or "")}
    assert not BY_DEFINITION & sourced


def commands(text, head):
    """What follows `make` or `assent` in code: blocks and backticks, never running prose."""
    code = chain(re.findall(r"```[a-z]*\n(.*?)```", text, re.S), re.findall(r"`([^`\n]+)`", text))
    for piece in code:
        yield from re.findall(rf"(?:^|[\s;&/]){head} +([a-z][a-z-]*)", piece, re.M)


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_commands_in_pages_exist(page):
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    verbs = {f.name for f in tree_of(PACKAGE / "cli.py").body if isinstance(f, ast.FunctionDef) and f.decorator_list}
    assert set(commands(text, "make")) <= targets
    assert set(commands(text, "assent")) <= verbs


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_paths_and_links_in_pages_exist(page):
    text = page.read_text(encoding="utf-8")
    links = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    missing = [t for t in links if t and not (page.parent / t).exists()]
    named = re.findall(r"`((?:src|tests|recipes|docs|benchmarks)/[\w./-]+)`", text)
    missing += [t for t in named if not (ROOT / t).exists()]
    assert not missing


def test_both_readmes_tell_the_same_story():
    """The same code, pictures and links, rooms and formats, in the same order, in both languages."""
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert BLOCK.findall(english) == BLOCK.findall(chinese)
    for pattern in (r"\]\(((?!README)[^)]+)\)", r"^(#+) ", r"^\| `([^`]+)` \|", r"^\* "):
        assert re.findall(pattern, english, re.M) == re.findall(pattern, chinese, re.M), pattern


def test_the_readme_names_every_format_of_data():
    formats = {f.model_fields["format"].default for f in vars(files).values() if _is_format(f)}
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert len(listed) == len(set(listed)) and set(listed) == formats


def _is_format(value):
    return isinstance(value, type) and issubclass(value, Frozen) and "format" in value.model_fields


def test_the_tree_of_the_readme_is_the_tree():
    listed = set(re.findall(r"^\| `src/assent/(\w+)/` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.M))
    assert listed == {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}


def test_the_recipe_of_the_readme_is_a_recipe():
    (recipe,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert list(parse_recipe(recipe, TABLE, ["model=some/model", "data=folder"]).stages) == ["sft", "reward", "policy"]


def test_the_algorithms_name_files_and_tests_that_exist():
    index = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    family = sorted((ROOT / "docs" / "algorithms").glob("*.md"))
    assert {f"algorithms/{p.name}" for p in family} == set(re.findall(r"\]\((algorithms/[^)]+)\)", index))
    text = "".join([index, *(p.read_text(encoding="utf-8") for p in family)])
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(tests) > 10
    missing = [f"{file}::{test}" for file, test in tests if f"def {test}(" not in (ROOT / file).read_text()]
    assert not missing
    for algorithm in (PACKAGE / "algorithms").glob("[a-z]*.py"):
        assert shown(algorithm) in text, "an algorithm without its equation and its test"


def test_every_algorithm_has_slips_planted_in_it():
    """In `tests/mutation/slips.py`; the tests named there must catch each: run tests/mutation -k NAME."""
    files = {p.stem for p in (PACKAGE / "algorithms").glob("*.py")} - {"__init__"}
    assert {name for name, of in SLIPS.items() if len(of.slips) >= 2} == files
