"""The catalogue as a page, to standard output."""

import sys

from assent.track.catalogue import page

sys.stdout.write(page())
