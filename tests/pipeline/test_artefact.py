"""Artefacts: whole or refused, and told apart by exactly what makes them different."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from assent.errors import ArtefactError
from assent.pipeline.artefact import Identity, code_version, fingerprint, load, seal, why, write

IDENTITY = Identity("toy", {"epochs": 2, "deep": {"rate": 0.1}}, {"sft": "a" * 64}, "0.1+abc", 5, {"data": "f" * 64})


def fill(out: Path) -> dict[str, float]:
    (out / "sub").mkdir()
    (out / "sub" / "b.bin").write_bytes(b"1234")
    (out / "a.txt").write_text("hello")
    return {"loss": 0.5, "none": float("nan")}


def test_an_artefact_reads_back_as_it_was_written(tmp_path: Path) -> None:
    made = write(tmp_path / "x" / "art", fill, name="sft", identity=IDENTITY)
    read = load(tmp_path / "x" / "art")
    assert set(read.files) == {"a.txt", "sub/b.bin"}
    assert (read.id, read.kind, read.name, read.seed) == (IDENTITY.id, "toy", "sft", 5)
    assert read.metrics["loss"] == 0.5
    assert math.isnan(read.metrics["none"])
    assert read.environment["python"]
    assert made.id == read.id
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["art"], "no temporary folder is left"


def test_a_failed_fill_leaves_nothing(tmp_path: Path) -> None:
    def fail(out: Path) -> dict[str, float]:
        (out / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "art", fail, name="sft", identity=IDENTITY)
    assert list(tmp_path.iterdir()) == []


def test_damage_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "art", fill, name="sft", identity=IDENTITY).folder
    (folder / "a.txt").write_text("hellO")
    load(folder, verify=False)
    with pytest.raises(ArtefactError, match=r"a\.txt has other contents"):
        load(folder)
    (folder / "a.txt").write_text("hello!")
    with pytest.raises(ArtefactError, match="6 bytes instead of 5"):
        load(folder, verify=False)
    (folder / "sub" / "b.bin").unlink()
    with pytest.raises(ArtefactError, match=r"a\.txt.*sub/b\.bin is missing"):
        load(folder, verify=False)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda text: text.replace('"epochs": 2', '"epochs": 3'), "does not match its id"),
        (lambda text: text[:40], "not JSON"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "format is 9"),
    ],
)
def test_a_changed_manifest_is_refused(tmp_path: Path, change: object, part: str) -> None:
    folder = write(tmp_path / "art", fill, name="sft", identity=IDENTITY).folder
    manifest = folder / "manifest.json"
    manifest.write_text(change(manifest.read_text()))
    with pytest.raises(ArtefactError, match=part):
        load(folder)


def test_a_folder_without_manifest_is_no_artefact(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is not an artefact"):
        load(tmp_path)


def test_an_artefact_is_never_overwritten_and_holds_no_links(tmp_path: Path) -> None:
    write(tmp_path / "art", fill, name="sft", identity=IDENTITY)
    with pytest.raises(ArtefactError, match="there already"):
        write(tmp_path / "art", fill, name="sft", identity=IDENTITY)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "art" / "a.txt")
    with pytest.raises(ArtefactError, match="symbolic link"):
        seal(tmp_path / "out", tmp_path / "other", name="x", identity=IDENTITY, metrics={})


def test_a_manifest_left_by_a_kill_while_sealing_is_not_a_file_of_the_artefact(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(out)
    (out / "manifest.json").write_text("half")
    assert set(seal(out, tmp_path / "art", name="x", identity=IDENTITY, metrics={}).files) == {"a.txt", "sub/b.bin"}
    load(tmp_path / "art")


CHANGES = {
    "kind": ("other", "kind: toy against other"),
    "config": ({"epochs": 3, "deep": {"rate": 0.1}}, "config epochs: 2 against 3"),
    "parents": ({"sft": "b" * 64}, "parent sft: aaaaaaaa against bbbbbbbb"),
    "code_version": ("0.1+xyz", "code: 0.1+abc against 0.1+xyz"),
    "seed": (6, "seed: 5 against 6"),
    "externals": ({"data": "0" * 64}, "contents of data: ffffffff against 00000000"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_is_part_of_the_identity_changes_the_id_and_is_named(tmp_path: Path, what: str) -> None:
    value, reason = CHANGES[what]
    other = dataclasses.replace(IDENTITY, **{what: value})
    a = write(tmp_path / "a", fill, name="x", identity=IDENTITY)
    b = write(tmp_path / "b", fill, name="x", identity=other)
    assert a.id != b.id
    assert why(a, b) == [reason]
    assert why(a, a) == []


def test_every_part_of_the_identity_is_tried_above() -> None:
    assert set(CHANGES) == {f.name for f in dataclasses.fields(Identity)}


def test_the_id_does_not_depend_on_the_order_of_keys() -> None:
    turned = dataclasses.replace(IDENTITY, config={"deep": {"rate": 0.1}, "epochs": 2})
    assert turned.id == IDENTITY.id
    assert json.loads(json.dumps(turned.config)) != list(IDENTITY.config)


def test_fingerprints_see_contents_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a").write_text("1")
    (folder / "b").write_text("2")
    first = fingerprint(folder, {})
    (folder / "b").write_text("3")
    changed = fingerprint(folder, {})
    (folder / "b").write_text("2")
    (folder / "b").rename(folder / "c")
    renamed = fingerprint(folder, {})
    (folder / "c").rename(folder / "b")
    assert len({first, changed, renamed}) == 3
    assert fingerprint(folder, {}) == first


def test_the_code_version_names_the_package_version() -> None:
    assert code_version().startswith("0.")
    assert len(code_version().partition("+")[2]) == 12
