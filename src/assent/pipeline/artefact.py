"""Artefacts: finished folders that say what they are, where they come from, and whether they are whole.

A folder is an artefact when it holds `manifest.json`. It is made beside its place, synced to the disk and renamed, so
that there is no moment at which half an artefact can be found.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import assent
from assent.errors import ArtefactError

MANIFEST = "manifest.json"
FORMAT = 1
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Identity:
    """What makes an artefact the one it is; its `id` is a hash of all of it.

    Args:
        kind: what made it, as in `do:` of the recipe.
        config: the resolved spec, plain data.
        parents: name of each dependency to its id.
        code_version: of the package that made it.
        seed: the number its randomness starts from.
        externals: name of each external reference to a fingerprint of its contents, or of its name where it is not a
            local path.
    """

    kind: str
    config: Mapping[str, Any]
    parents: Mapping[str, str]
    code_version: str
    seed: int
    externals: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        text = json.dumps(vars(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Artefact:
    """A finished folder.

    Args:
        folder: where it lies.
        id: hash of its identity.
        kind: what made it.
        name: the stage's name in its recipe.
        parents: name of each dependency to its id.
        config: the resolved spec, plain data.
        code_version: of the package that made it.
        seed: the number its randomness started from.
        environment: versions it was made with; not part of the id.
        metrics: the closing figures of the stage; nan where there is none.
        externals: name of each external reference to its fingerprint.
        files: path of each file to its sha256 and its size in bytes.
    """

    folder: Path
    id: str
    kind: str
    name: str
    parents: Mapping[str, str]
    config: Mapping[str, Any]
    code_version: str
    seed: int
    environment: Mapping[str, str]
    metrics: Mapping[str, float]
    externals: Mapping[str, str]
    files: Mapping[str, Mapping[str, Any]]


# ------------------------------------------------------------------------------------------------ writing


def write(folder: Path, fill: Callable[[Path], Mapping[str, float]], *, name: str, identity: Identity) -> Artefact:
    """Make an artefact at once: `fill` writes into a temporary sibling and returns the closing figures.

    Raises:
        ArtefactError: as `seal`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    out = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        return seal(out, folder, name=name, identity=identity, metrics=fill(out))
    finally:
        shutil.rmtree(out, ignore_errors=True)


def seal(
    out: Path,
    folder: Path,
    *,
    name: str,
    identity: Identity,
    metrics: Mapping[str, float],
    more: Mapping[str, str] | None = None,
) -> Artefact:
    """Turn the filled folder `out` into the artefact `folder`: manifest, sync, rename. Both on one file system.

    Args:
        more: of the environment, such as the device; no part of the id.

    Raises:
        ArtefactError: `folder` exists, or `out` holds a symbolic link.
    """
    if folder.exists():
        raise ArtefactError(
            f"{folder} is there already",
            got="a finished artefact",
            why="artefacts are never overwritten",
            fix="move it away or choose another folder",
        )
    files = {}
    for path in _files(out):
        if path.is_symlink():
            raise ArtefactError(
                f"{path} is a symbolic link",
                got=str(path.readlink()),
                why="an artefact must stay whole when what the link points to changes",
                fix="have the stage copy the file",
            )
        files[path.relative_to(out).as_posix()] = {"sha256": sha256(path), "size": path.stat().st_size}
    manifest = {
        "format": FORMAT,
        "id": identity.id,
        "name": name,
        **vars(identity),
        "environment": environment() | dict(more or {}),
        "metrics": {k: v if math.isfinite(v) else None for k, v in sorted(metrics.items())},
        "files": files,
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sync_tree(out)
    out.rename(folder)
    sync(folder.parent)
    return load(folder, verify=False)


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically: after a crash it is the old one or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Have every file and folder below reach the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            sync(Path(root) / name)
        sync(Path(root))


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> list[Path]:
    """Every file below, sorted, the manifest of a run that was killed while sealing left out."""
    found = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return sorted(p for p in found if p != folder / MANIFEST)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------ reading


def load(folder: Path, *, verify: bool = True) -> Artefact:
    """Read an artefact.

    Args:
        verify: compare the sha256 of every file; without it only presence and size are.

    Raises:
        ArtefactError: no manifest, a manifest that was changed, or files that are missing or damaged, each named.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    keys = ("kind", "config", "parents", "code_version", "seed", "externals")
    identity = Identity(**{k: manifest[k] for k in keys})
    if identity.id != manifest["id"]:
        raise _broken(folder, "its manifest does not match its id, so it was changed by hand or damaged")
    damage = [d for name, entry in manifest["files"].items() if (d := _damage(folder / name, name, entry, verify))]
    if damage:
        raise _broken(folder, "; ".join(damage))
    return Artefact(
        folder=folder,
        id=manifest["id"],
        name=manifest["name"],
        environment=manifest["environment"],
        metrics={k: math.nan if v is None else v for k, v in manifest["metrics"].items()},
        files=manifest["files"],
        **vars(identity),
    )


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtefactError(
            f"{folder} is not an artefact",
            got=f"no readable {MANIFEST}: {error.strerror}",
            why="only a finished stage has one",
            fix="check the path, or run the recipe to finish the stage",
        ) from error
    except ValueError as error:
        raise _broken(folder, f"{MANIFEST} is not JSON: {error}") from error
    if manifest.get("format") != FORMAT:
        raise _broken(folder, f"its format is {manifest.get('format')!r} where this version reads {FORMAT}")
    return manifest


def _damage(path: Path, name: str, entry: Mapping[str, Any], verify: bool) -> str | None:
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != entry["size"]:
        return f"{name} has {path.stat().st_size} bytes instead of {entry['size']}"
    if verify and sha256(path) != entry["sha256"]:
        return f"{name} has other contents than when it was made"
    return None


def _broken(folder: Path, got: str) -> ArtefactError:
    return ArtefactError(
        f"the artefact {folder} is not whole",
        got=got,
        why="a stage built on it would not be what its lineage says",
        fix=f"bring the files back from a copy, or move {folder} away and run the recipe again",
    )


# ------------------------------------------------------------------------------------------------ what goes into the id


@functools.cache
def code_version() -> str:
    """The package's version and a digest of all its sources, templates and texts included; once per process."""
    root = Path(assent.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(p for ending in ("py", "c", "jinja", "yaml") for p in root.rglob(f"*.{ending}")):
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return f"{assent.__version__}+{digest.hexdigest()[:12]}"


def environment() -> dict[str, str]:
    """Versions of what computes, read without importing it."""
    versions = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in ("torch", "transformers", "tokenizers", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def fingerprint(path: Path, known: dict[str, str]) -> str:
    """Digest of a file, or of every file of a folder with its name.

    Args:
        known: digests by path, size and time of change; used instead of reading a file again, and added to.
    """
    if path.is_dir():
        parts = [
            f"{p.relative_to(path).as_posix()}\0{fingerprint(p, known)}" for p in sorted(path.rglob("*")) if p.is_file()
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    if key not in known:
        known[key] = sha256(path)
    return known[key]


# ------------------------------------------------------------------------------------------------ why two differ


def why(a: Artefact, b: Artefact) -> list[str]:
    """Every reason for which two artefacts are not the same one, in words; empty when they are."""
    if a.id == b.id:
        return []
    reasons = [f"kind: {a.kind} against {b.kind}"] if a.kind != b.kind else []
    reasons += [f"config {line}" for line in differences(a.config, b.config)]
    reasons += [f"parent {line}" for line in differences(_short(a.parents), _short(b.parents))]
    reasons += [f"contents of {line}" for line in differences(_short(a.externals), _short(b.externals))]
    if a.seed != b.seed:
        reasons.append(f"seed: {a.seed} against {b.seed}")
    if a.code_version != b.code_version:
        reasons.append(f"code: {a.code_version} against {b.code_version}")
    return reasons


def _short(ids: Mapping[str, str]) -> dict[str, str]:
    return {name: id[:8] for name, id in ids.items()}


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """The leaves in which plain data differ, as `key: this against that`."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = dict.fromkeys([*a, *b])
        lines = [differences(a.get(k, _ABSENT), b.get(k, _ABSENT), f"{where}.{k}" if where else k) for k in keys]
        return [line for each in lines for line in each]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [line for i, (x, y) in pairs for line in differences(x, y, f"{where}.{i}")]
    if a == b or (a != a and b != b):
        return []
    return [f"{where}: {_shown(a)} against {_shown(b)}"]


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


def _shown(x: Any) -> str:
    return x if isinstance(x, str) else repr(x)
