"""A plugin of pytest: every test of the session runs with its models on the card.

    python -m pytest -p tests.device.everywhere tests/end_to_end/test_align.py

For what does not fork or start other processes, which have no card.
"""

from collections.abc import Iterator

import pytest

from assent.stages import placement
from tests.device.card import card, plugged_in, register

register()


@pytest.fixture(scope="session", autouse=True)
def _on_the_card() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, plugged_in():
        patch.setattr(placement, "_device", lambda name: card())
        yield
