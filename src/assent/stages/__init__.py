"""The composition root: one file a stage; the only place that knows concrete classes."""

from assent.dist.processes import current as ranks
from assent.stages.chat import chat
from assent.stages.placement import place_of
from assent.stages.table import TABLE
from assent.stages.verify import verify
from assent.track.terminal import RunConsole as console
from assent.track.terminal import quiet_console

__all__ = ["TABLE", "chat", "console", "place_of", "quiet_console", "ranks", "verify"]
