"""Configuration as a value: strict frozen models read from YAML, every problem of a file listed at once.

A recipe is read in four steps, each usable alone: `read_yaml` (text to a `Tree` that remembers its lines),
`override` (`stages.sft.epochs=3`), `substitute` (`${data}`), and `validate` (a tree's branch to a model). `validate`
returns problems instead of raising, so that the caller can show all of them; `refuse` raises what was found.

Models are read in pydantic's strict JSON mode: no text becomes a number and no number a bool, while lists become tuples
and names become enums. Unknown keys are refused at every depth with the nearest name; a stdlib dataclass does the
same when it declares `__pydantic_config__ = {"extra": "forbid"}`.
"""

from assent.config.override import override, split_assignment, substitute
from assent.config.own import resolve
from assent.config.problems import Location, Problem, dotted, nearest, refuse, suggestion
from assent.config.spec import External, Frozen
from assent.config.tree import Tree, dump, dump_yaml, parse_value, parse_yaml, plain, read_yaml
from assent.config.validation import fields_of, validate

__all__ = [
    "External",
    "Frozen",
    "Location",
    "Problem",
    "Tree",
    "dotted",
    "dump",
    "dump_yaml",
    "fields_of",
    "nearest",
    "override",
    "parse_value",
    "parse_yaml",
    "plain",
    "read_yaml",
    "refuse",
    "resolve",
    "split_assignment",
    "substitute",
    "suggestion",
    "validate",
]
