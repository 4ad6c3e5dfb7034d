"""Every metric that the code names is declared, and every declared one is named by the code."""

import ast
import re

from source_tree import MODULES, ROOT, room_of, shown, tree_of

from assent.track import catalogue

ROOMS = {"algorithms", "train", "rollout", "rewards", "stages", "doctor"}
NAME = re.compile(r"[a-z_]+/[a-z0-9_]+")


def metrics_named():
    """(place, name) of each string used as a key that looks like a metric; a formatted part is written as `x`."""
    for path in (p for p in MODULES if room_of(p) in ROOMS):
        for node in ast.walk(tree_of(path)):
            keys = node.keys if isinstance(node, ast.Dict) else [node.slice] if isinstance(node, ast.Subscript) else []
            for name in (_text(k) for k in keys):
                if name and NAME.fullmatch(name):
                    yield f"{shown(path)}:{node.lineno}", name


def _text(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(p.value if isinstance(p, ast.Constant) else "x" for p in node.values)
    return None


def test_there_is_something_to_check():
    assert len({name for _, name in metrics_named()}) > 20


def test_every_metric_in_the_code_is_declared():
    wrong = []
    for place, name in metrics_named():
        try:
            catalogue.lookup(name)
        except Exception as error:
            wrong.append(f"{place} {name}: {error}")
    assert not wrong, "\n".join(wrong)


def test_the_page_of_metrics_is_the_catalogue():
    assert (ROOT / "docs" / "metrics.md").read_text() == catalogue.page(), "run: make docs"
