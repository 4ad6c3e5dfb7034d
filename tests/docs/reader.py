"""Pages that are run, block by block, as a reader would.

A block whose first line is `# NAME.EXT` is a file of that name; a bash block is typed. Nothing else is a block.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"# ([\w.-]+\.\w+)\n")


def shims(folder: Path) -> Path:
    """`python` and `assent` of this very interpreter, whatever is installed."""
    folder.mkdir(exist_ok=True)
    for name, command in {"python": sys.executable, "assent": f"{sys.executable} -m assent"}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def read(page: Path, work: Path) -> list[str]:
    """Do in the folder what the page says; what each command printed."""
    path = f"{shims(work / '.bin')}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    printed = []
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if named := FILE.match(block):
            (work / named[1]).write_text(block)
            continue
        assert language == "bash", f"a block is a named file or bash; got {language}"
        command = ["bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout + done.stderr)
    return printed
