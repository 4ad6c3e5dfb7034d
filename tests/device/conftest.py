"""What runs on the card runs in processes of its own (`test_on_card`)."""

import os

collect_ignore = [] if os.environ.get("ASSENT_CARD") else ["on_card"]
