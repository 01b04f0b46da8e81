"""The repository on disk: what is listed, what is checked, how versions are published."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.errors import RepositoryError
from service.repository.manifest import Manifest
from service.repository.store import (
    MANIFEST,
    check_files,
    fingerprint,
    look,
    publish,
    read_files,
    read_manifest,
    revise,
    sha256,
    staging,
    versions,
)
from tests.repository.test_manifest import facts

FILES = ("embed.onnx", "layers.onnx", "head.onnx", "tokenizer.json")


def write_files(folder: Path, **changes: Any) -> Manifest:
    """Files of a version in ``folder``, and the draft of their manifest."""
    for name in FILES:
        (folder / name).write_text(f"{name} in {folder.name}")
    return Manifest.model_validate(facts(sha256={name: sha256(folder / name) for name in FILES}) | changes)


def publish_one(root: Path, **changes: Any) -> Path:
    with staging(root) as folder:
        return publish(folder, root, write_files(folder, **changes))


def check_whole(folder: Path) -> Manifest:
    """Its manifest, once every file is as that says."""
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    return manifest


def test_the_first_version_is_one_and_the_next_follows_the_newest(tmp_path: Path) -> None:
    root = tmp_path / "made" / "when needed"
    first, second = publish_one(root), publish_one(root)
    first.rename(root / "sentiment" / "7")
    third = publish_one(root)
    other = publish_one(root, name="qa")

    assert [path.name for path in (first, second, third, other)] == ["1", "2", "8", "1"]
    assert versions(root) == {"qa": [1], "sentiment": [2, 7, 8]}
    assert [check_whole(path).version for path in (second, third, other)] == [2, 8, 1]


def test_publishing_is_one_rename(tmp_path: Path) -> None:
    with staging(tmp_path) as folder:
        draft = write_files(folder)
        before = folder.stat().st_ino
        assert versions(tmp_path) == {}
        done = publish(folder, tmp_path, draft)

        assert not folder.exists()
        assert done.stat().st_ino == before
    assert done == tmp_path / "sentiment" / "1"
    assert done.stat().st_mode & 0o777 == 0o755


def test_a_published_version_stays_when_its_staging_ends(tmp_path: Path) -> None:
    done = publish_one(tmp_path)

    assert sorted(path.name for path in done.iterdir()) == sorted([*FILES, MANIFEST])
    assert [path.name for path in tmp_path.iterdir()] == ["sentiment"]


def test_a_number_taken_in_between_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, together = os.rename, threading.Barrier(2)
    first_time = {"a": True, "b": True}

    def rename_together(source: Path, target: Path) -> None:
        """Both publishers have chosen their number before either takes it."""
        who = threading.current_thread().name
        if first_time.pop(who, False):
            together.wait(10)
        rename(source, target)

    monkeypatch.setattr("os.rename", rename_together)
    threads = [threading.Thread(target=publish_one, args=(tmp_path,), name=name) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert first_time == {}
    assert versions(tmp_path) == {"sentiment": [1, 2]}
    for number in (1, 2):
        assert check_whole(tmp_path / "sentiment" / str(number)).version == number


def test_many_publishers_at_once_get_a_number_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: publish_one(tmp_path), range(24)))

    assert sorted(int(folder.name) for folder in folders) == list(range(1, 25))
    assert [check_whole(folder).version for folder in folders] == [int(folder.name) for folder in folders]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "spaced out", "x\n"])
def test_a_name_that_is_no_folders_name_is_not_published(tmp_path: Path, name: str) -> None:
    with pytest.raises(RepositoryError, match="is no name for a model"):
        publish_one(tmp_path / "root", name=name)

    assert list((tmp_path / "root").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_staging_leaves_nothing_behind_after_an_error(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with staging(tmp_path) as folder:
            write_files(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()

    assert list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_is_an_error_and_leaves_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.rename", refuse)
    with pytest.raises(PermissionError):
        publish_one(tmp_path)

    assert versions(tmp_path) == {}
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


def test_what_is_being_written_is_not_listed(tmp_path: Path) -> None:
    publish_one(tmp_path)
    with staging(tmp_path) as folder:
        write_files(folder)

        assert folder.parent == tmp_path  # on the same disk, or no rename could publish it
        assert versions(tmp_path) == {"sentiment": [1]}


def test_only_numbered_folders_of_named_models_are_listed(tmp_path: Path) -> None:
    for folder in ("a/1", "a/2", "a/10", "a/.3", "a/03", "a/0", "a/x", "a/-1", "a/1.5", "a/²", ".b/1", "c", "d e/1"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "a" / "4").write_text("a file")
    (tmp_path / "README.md").write_text("a file")

    assert versions(tmp_path) == {"a": [1, 2, 10]}


def test_an_empty_repository_has_no_versions(tmp_path: Path) -> None:
    assert versions(tmp_path) == {}


def test_a_missing_repository_is_an_error_that_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"nowhere: No such file or directory.*--model-repo"):
        versions(tmp_path / "nowhere")


def test_a_repository_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RepositoryError, match="file: Not a directory"):
        versions(tmp_path / "file")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", ["", "something else"])
def test_a_wrong_sum_names_the_file(tmp_path: Path, name: str, content: str) -> None:
    folder = publish_one(tmp_path)
    (folder / name).write_text(content)

    with pytest.raises(RepositoryError, match=f"sentiment/1/{name} is damaged"):
        check_files(folder, read_manifest(folder))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = publish_one(tmp_path)
    (folder / name).unlink()

    with pytest.raises(RepositoryError, match=f"sentiment/1/{name}: No such file.*the manifest names it"):
        check_files(folder, read_manifest(folder))


def test_a_file_that_no_manifest_names_is_nobodys_affair(tmp_path: Path) -> None:
    folder = publish_one(tmp_path)
    (folder / "notes.txt").write_text("mine")

    assert check_whole(folder).name == "sentiment"


@pytest.mark.parametrize("moved", ["sentiment/2", "feeling/1"])
def test_a_version_that_was_moved_says_what_it_was(tmp_path: Path, moved: str) -> None:
    folder = publish_one(tmp_path)
    (tmp_path / moved).parent.mkdir(exist_ok=True)
    folder.rename(tmp_path / moved)

    with pytest.raises(RepositoryError, match=r"says sentiment/1: the folder was renamed or copied"):
        read_manifest(tmp_path / moved)


def test_a_version_without_a_manifest_is_an_error(tmp_path: Path) -> None:
    folder = publish_one(tmp_path)
    (folder / MANIFEST).unlink()

    with pytest.raises(RepositoryError, match=r"sentiment/1/manifest\.json: No such file"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"layers": 12', '"layers": "many"', r"manifest\.json: layers: "),
        ('"layers": 12', '"layres": 12', r"manifest\.json: layers: Field required"),
        ('"window": 128', '"window": 128, "colour": "red"', r"manifest\.json: colour: Extra inputs"),
        ('"embed.onnx"', '"../embed.onnx"', r"manifest\.json: graphs\.cpu\.embed: "),
        ('"window": 128', '"window": 1280', r"manifest\.json: the whole: .*window <= max_length"),
        ("{", "[", r"manifest\.json: the whole: .*JSON"),
    ],
)
def test_a_manifest_that_was_tampered_with_names_the_field(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = publish_one(tmp_path) / MANIFEST
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")

    with pytest.raises(RepositoryError, match=said):
        read_manifest(path.parent)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"null", b"{}"])
def test_a_manifest_that_is_none_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    folder = publish_one(tmp_path)
    (folder / MANIFEST).write_bytes(content)

    with pytest.raises(RepositoryError, match=r"sentiment/1/manifest\.json: "):
        read_manifest(folder)


def test_a_label_in_any_script_is_kept_as_it_is(tmp_path: Path) -> None:
    folder = publish_one(tmp_path, labels=["négatif", "积极"])

    assert read_manifest(folder).labels == ["négatif", "积极"]
    assert "积极" in (folder / MANIFEST).read_text(encoding="utf-8")


def test_a_revision_is_the_next_version_with_the_same_files(tmp_path: Path) -> None:
    first = publish_one(tmp_path)
    second = revise(first, temperature=2.5)

    assert second.name == "2"
    assert (read_manifest(first).temperature, read_manifest(second).temperature) == (1.0, 2.5)
    check_files(second, read_manifest(second))
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
    with pytest.raises(ValidationError):
        revise(first, temperature=-1)
    assert versions(tmp_path)[first.parent.name] == [1, 2]


def test_files_are_read_whole_and_stay_as_they_were_checked(tmp_path: Path) -> None:
    folder = publish_one(tmp_path)
    files = read_files(folder, read_manifest(folder))
    for name in FILES:
        (folder / name).write_text("")

    assert files.keys() == {*FILES}
    assert all(content.decode().startswith(f"{name} in ") for name, content in files.items())
    with pytest.raises(RepositoryError, match=r"is damaged.*Copy or convert the version again"):
        read_files(folder, read_manifest(folder))


def test_a_folder_that_cannot_be_read_keeps_no_other_out_of_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a/1", "b/2", "c/3"):
        (tmp_path / key).mkdir(parents=True)
    iterdir = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "b":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    listing = look(tmp_path)

    assert listing.models == versions(tmp_path) == {"a": [1], "c": [3]}
    assert listing.unreadable == {"b": "Permission denied"}
    assert (listing.of("a"), listing.of("b")) == ([1], [])


def test_a_fingerprint_is_the_same_as_long_as_the_files_are(tmp_path: Path) -> None:
    folder = publish_one(tmp_path)

    assert fingerprint(folder) == fingerprint(folder)
    assert {name for name, *_ in fingerprint(folder)} == {*FILES, MANIFEST}


@pytest.mark.parametrize("change", ["written", "emptied", "touched", "replaced", "added", "removed", "renamed"])
def test_a_fingerprint_changes_with_any_file(tmp_path: Path, change: str) -> None:
    folder = publish_one(tmp_path)
    before, path = fingerprint(folder), folder / "head.onnx"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    match change:
        case "written":
            path.write_text(path.read_text()[::-1])
            os.utime(path, ns=(times[0], times[1] + 1))  # two writes may fall into one tick of the disk's clock
        case "emptied":
            path.write_text("")
            os.utime(path, ns=times)
        case "touched":
            os.utime(path, ns=(times[0], times[1] + 1))
        case "replaced":
            (tmp_path / "other").write_text(path.read_text())
            os.utime(tmp_path / "other", ns=times)
            (tmp_path / "other").rename(path)
        case "added":
            (folder / "notes.txt").write_text("")
        case "removed":
            path.unlink()
        case "renamed":
            path.rename(folder / "tail.onnx")

    assert fingerprint(folder) != before


def test_a_folder_that_is_not_there_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    folder = publish_one(tmp_path)

    assert fingerprint(tmp_path / "nowhere") == fingerprint(tmp_path / "nowhere elsewhere") != fingerprint(folder)


def test_a_version_published_over_itself_has_another_fingerprint(tmp_path: Path) -> None:
    folder = publish_one(tmp_path)
    before = fingerprint(folder)
    other = publish_one(tmp_path)
    folder.rename(tmp_path / ".old")
    other.rename(folder)

    assert fingerprint(folder) != before
