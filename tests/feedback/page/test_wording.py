"""Both languages say everything, and nothing that is not asked for."""

import re
from pathlib import Path
from string import Formatter

import pytest
import yaml

import assent.feedback.page as page

FOLDER = Path(page.__file__).parent
TABLE = yaml.safe_load((FOLDER / "wording.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("key", TABLE)
def test_both_languages_say_it_with_the_same_fields(key):
    assert set(TABLE[key]) == {"en", "zh"}
    fields = [{name for _, name, _, _ in Formatter().parse(TABLE[key][lang]) if name} for lang in ("en", "zh")]
    assert fields[0] == fields[1] and all(TABLE[key].values())


def test_no_word_is_left_over():
    source = "".join(p.read_text(encoding="utf-8") for p in FOLDER.rglob("*") if p.suffix in (".py", ".jinja"))
    stems = ("keys_", "reason_", "flag_", "vote_")
    named = set(re.findall(r"\"(\w+)\"", source)) | {"user", "assistant", "system", "tool"}
    computed = {"helpful", "harmless", "honest", "bad", "neutral", "good"}
    computed |= {"significantly", "better", "slightly", "negligibly", "unstated"}
    assert not [key for key in TABLE if key not in named | computed and not key.startswith(stems)]
