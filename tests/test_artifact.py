"""Directories are written whole or not at all, and what was changed afterwards is found."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prismrec.artifact import alone, copy_files, read_manifest, replace_manifest, replacing_artifact, write_manifest
from prismrec.atomic import write_json
from prismrec.errors import ArtifactError, ConfigError


def write(destination: Path, content: str = "one", kind: str = "store") -> None:
    with replacing_artifact(destination, kind) as directory:
        (directory / "folder").mkdir()
        (directory / "folder" / "data.txt").write_text(content)
        write_manifest(directory, kind, counts={"rows": 1})


def test_a_new_directory(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "store")
    manifest = read_manifest(tmp_path / "deep" / "store", "store")
    assert manifest == {
        "kind": "store",
        "format_version": 2,
        "counts": {"rows": 1},
        "files": {
            "folder/data.txt": {
                "bytes": 3,
                "sha256": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
            }
        },
    }
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["store"]
    assert (tmp_path / "deep" / "store").stat().st_mode & 0o777 == 0o755


def test_an_earlier_one_of_the_same_kind_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "store", "one")
    write(tmp_path / "store", "two")
    assert (tmp_path / "store" / "folder" / "data.txt").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_an_empty_directory_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    write(tmp_path / "store")
    read_manifest(tmp_path / "store", "store")


def _other_kind(path: Path) -> None:
    write(path, kind="run")


def _file(path: Path) -> None:
    path.write_text("notes")


def _photos(path: Path) -> None:
    path.mkdir()
    (path / "cat.jpg").touch()


def _broken_manifest(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").write_text("{")


@pytest.mark.parametrize("make", [_other_kind, _file, _photos, _broken_manifest])
def test_anything_else_is_left_alone(tmp_path: Path, make) -> None:
    make(tmp_path / "store")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArtifactError, match="expected a new path or an earlier store, found something else"):
        write(tmp_path / "store")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    write(tmp_path / "store", "one")

    def fail() -> None:
        with replacing_artifact(tmp_path / "store", "store") as directory:
            (directory / "half").touch()
            raise error

    with pytest.raises(error):
        fail()
    assert (tmp_path / "store" / "folder" / "data.txt").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_link_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "store", "one")
    for name, target in (("current", "store"), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(ArtifactError, match=f"{name}: expected a new path or an earlier store, found a link"):
            write(tmp_path / name)
    assert (tmp_path / "store" / "folder" / "data.txt").read_text() == "one"


@given(place=st.integers(0, 2), byte=st.integers(1, 255))
def test_any_changed_byte_is_found(tmp_path_factory: pytest.TempPathFactory, place: int, byte: int) -> None:
    path = tmp_path_factory.mktemp("artifact") / "store"
    write(path)
    content = bytearray(b"one")
    content[place] ^= byte
    (path / "folder" / "data.txt").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"data\.txt: does not match its checksum in the manifest"):
        read_manifest(path, "store")


def test_a_shorter_and_a_missing_file_are_found(tmp_path: Path) -> None:
    write(tmp_path / "store")
    data = tmp_path / "store" / "folder" / "data.txt"
    data.write_text("on")
    with pytest.raises(ArtifactError, match="does not match its checksum"):
        read_manifest(tmp_path / "store", "store")
    data.unlink()
    with pytest.raises(ArtifactError, match=r"data\.txt: expected by the store's manifest, but missing"):
        read_manifest(tmp_path / "store", "store")


def test_another_kind_and_another_format_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "run", kind="run")
    with pytest.raises(ArtifactError, match="expected a store of format 2, found run of 2; make it again"):
        read_manifest(tmp_path / "run", "store")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    write_json(tmp_path / "run" / "manifest.json", manifest | {"format_version": 1})
    with pytest.raises(ArtifactError, match="expected a run of format 2, found run of 1"):
        read_manifest(tmp_path / "run", "run")


def test_any_change_of_the_manifest_is_found(tmp_path: Path) -> None:
    write(tmp_path / "store")
    path = tmp_path / "store" / "manifest.json"
    path.write_text(path.read_text().replace('"rows": 1', '"rows": 2'))
    with pytest.raises(ArtifactError, match=r"manifest\.json: does not match its own checksum; make the store again"):
        read_manifest(tmp_path / "store", "store")


OUTSIDE = ["../secret", "folder/../../secret", "{tmp}/secret", "link", "folder/linked/secret", "a\0b", "\ud800"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_manifest_names_only_what_is_in_its_directory(tmp_path: Path, name: str) -> None:
    write(tmp_path / "store")
    (tmp_path / "secret").write_text("one")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "store" / "folder" / "linked").symlink_to(tmp_path)
    manifest = read_manifest(tmp_path / "store", "store")
    manifest["files"] = {name.format(tmp=tmp_path): manifest["files"]["folder/data.txt"]}
    replace_manifest(tmp_path / "store", manifest)
    with pytest.raises(ArtifactError, match="found a path that leaves it; do not trust it"):
        read_manifest(tmp_path / "store", "store")


def test_what_was_being_replaced_comes_back_before_it_is_looked_at(tmp_path: Path) -> None:
    """A process was killed where directories cannot trade places; what comes next must not take the other's place."""
    write(tmp_path / ".store.replaced.tmp", kind="run")
    with pytest.raises(ArtifactError, match="expected a new path or an earlier store, found something else"):
        write(tmp_path / "store")
    read_manifest(tmp_path / "store", "run")


def test_only_what_a_manifest_names_is_copied(tmp_path: Path) -> None:
    write(tmp_path / "store")
    (tmp_path / "secret").touch()
    (tmp_path / "store" / "notes").symlink_to(tmp_path / "secret")
    copy_files(tmp_path / "store", read_manifest(tmp_path / "store", "store"), tmp_path / "copy")
    assert [path for path in (tmp_path / "copy").rglob("*") if path.is_file()] == [tmp_path / "copy/folder/data.txt"]


def test_one_changes_a_directory_at_a_time(tmp_path: Path) -> None:
    with (
        alone(tmp_path, "run"),
        pytest.raises(ArtifactError, match="expected a run that nobody is changing"),
        alone(tmp_path, "run"),
    ):
        pass
    with alone(tmp_path, "run"):
        pass
    with pytest.raises(BlockingIOError), alone(tmp_path, "run"):
        raise BlockingIOError
    with (
        pytest.raises(ArtifactError, match=r"expected a run directory, could not open it \(No such file"),
        alone(tmp_path / "a", "run"),
    ):
        pass


def test_a_directory_may_itself_be_reached_by_a_link(tmp_path: Path) -> None:
    write(tmp_path / "store")
    (tmp_path / "current").symlink_to(tmp_path / "store")
    assert read_manifest(tmp_path / "current", "store")["counts"] == {"rows": 1}


def large(tmp_path: Path) -> Path:
    """65 MiB: samples begin every 64 / 63 MiB, so that a 63rd of each MiB after the first is not looked at."""
    (tmp_path / "store").mkdir()
    path = tmp_path / "store" / "large"
    path.write_bytes(bytes(65 * 2**20))
    write_manifest(tmp_path / "store", "store")
    return path


def change(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"x")


@pytest.mark.parametrize("place", [0, 40 * 2**20, 65 * 2**20 - 1])
def test_samples_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    path = large(tmp_path)
    monkeypatch.setenv("PRISMREC_CHECKSUMS", "sampled")
    read_manifest(path.parent, "store")
    change(path, place)
    with pytest.raises(ArtifactError, match="large: does not match its checksum"):
        read_manifest(path.parent, "store")


def test_what_lies_between_samples_is_found_by_the_full_checksum_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = large(tmp_path)
    change(path, 2**20 + 1)  # the first sample ends at 1 MiB, the second begins at 64 / 63 MiB = 1,065,220 bytes
    with pytest.raises(ArtifactError, match="large: does not match its checksum"):
        read_manifest(path.parent, "store")
    monkeypatch.setenv("PRISMREC_CHECKSUMS", "sampled")
    read_manifest(path.parent, "store")


def test_small_files_are_always_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISMREC_CHECKSUMS", "sampled")
    write(tmp_path / "store")
    (tmp_path / "store" / "folder" / "data.txt").write_text("two")
    with pytest.raises(ArtifactError, match="does not match its checksum"):
        read_manifest(tmp_path / "store", "store")


def test_another_way_to_check_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "store")
    monkeypatch.setenv("PRISMREC_CHECKSUMS", "none")
    with pytest.raises(ConfigError, match="PRISMREC_CHECKSUMS: expected full or sampled, found 'none'"):
        read_manifest(tmp_path / "store", "store")


_DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        _DEEP,
        "\x00",
        '{"files": {"a": 3}, "kind": "store", "format_version": 2}',
        "",
        "{",
        "[]",
        "{}",
        '{"files": 3}',
        '{"files": {}, "kind": "store"}',
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json: expected a PrismRec manifest, could not read it"):
        read_manifest(tmp_path, "store")


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"expected a store directory, found no manifest\.json"):
        read_manifest(tmp_path / "nowhere", "store")


def test_only_the_files_named_are_described(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "log").write_text("still growing")
    write_manifest(tmp_path, "run", files=[tmp_path / "a"])
    (tmp_path / "log").write_text("grown")
    assert set(read_manifest(tmp_path, "run")["files"]) == {"a"}
