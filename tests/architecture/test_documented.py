"""The public mathematics is documented, and the pages name only what exists."""

import ast
import re
from itertools import chain

import pytest
import yaml
from source_tree import PACKAGE, ROOT, pages, shown, tree_of

MATHEMATICS = sorted(p for p in (PACKAGE / "functional").glob("*.py") if not p.name.startswith("_"))
SOURCE = re.compile(r"[Ss]ource|arXiv|et al|\b\d{4}\.\d{5}\b")
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
        yield from re.findall(rf"(?:^|[\s;&/]){head} +([a-z]+)\b", piece, re.M)


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_commands_in_pages_exist(page):
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
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
    """Same commands, same pictures, same recipe, same number of sections, in both languages."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")]
    for pattern in (r"^    (?:make|assent) .*$", r"!\[[^]]*\]\(([^)]+)\)", r"^(#+) ", r"`([\w/]+/)`"):
        a, b = (re.findall(pattern, t, re.M) for t in texts)
        assert a == b, pattern
    recipes = [re.findall(r"```yaml\n(.*?)```", t, re.S) for t in texts]
    assert [[yaml.safe_load(r) for r in rs] for rs in recipes][0] == [[yaml.safe_load(r) for r in rs] for rs in recipes][1]
