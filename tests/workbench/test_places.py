"""What the browser may have read: below the workspace and the allowed folders, links and `..` resolved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from probes.errors import UserError
from workbench.passwords import check_password, hash_password, read_password
from workbench.places import ALLOWED, REMOTE_CODE, Places, find_places, name_places
from workbench.settings import Question, Settings

OUTSIDE = [
    "/etc/passwd", "/", "..", "../other", "inside/../../other", "inside/../..", "~root/x", "a\0b", "/proc/self/environ",
    "leads-out", "leads-out/secret.txt", "//etc/passwd", "/../etc/passwd", "inside/" + "../" * 40 + "etc/passwd",
]  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a folder, and a symbolic link that leads out of it."""
    folder = tmp_path / "workspace"
    (folder / "inside").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "secret.txt").write_text("secret")
    (folder / "leads-out").symlink_to(tmp_path / "other")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MEMORY_CIRCUITS_RUNS", str(folder / "runs"))
    return folder


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_outside_is_reached(workspace: Path, path: str) -> None:
    places = find_places({})
    with pytest.raises(UserError):
        places.confine(path)
    for name in ("model", "bank", "memory", "text"):
        with pytest.raises(UserError):
            places.check_settings(replace(Settings(), **{name: path}))
    with pytest.raises(UserError):
        places.check_question(Question(pairs=path))


def test_what_is_inside_is_reached(workspace: Path) -> None:
    places = find_places({})
    assert places.confine("inside") == workspace.resolve() / "inside"
    assert places.confine("inside/../inside/not-yet") == workspace.resolve() / "inside" / "not-yet"
    places.check_settings(Settings(model="inside", bank="none", memory="own", text="inside/text.txt"))
    places.check_settings(Settings(model="gpt2"))
    places.check_settings(Settings(model="EleutherAI/pythia-70m"))


def test_a_folder_named_at_the_start_is_reached(workspace: Path, tmp_path: Path) -> None:
    places = find_places(name_places([str(tmp_path / "other")], remote_code=False))
    assert places.confine("leads-out/secret.txt") == (tmp_path / "other" / "secret.txt").resolve()
    places.check_settings(Settings(model=str(tmp_path / "other")))
    with pytest.raises(UserError, match="outside the workspace"):
        places.confine(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        name_places([str(tmp_path / "nowhere")], remote_code=False)


def test_a_name_like_a_hub_name_that_is_a_link_out_is_refused(workspace: Path) -> None:
    with pytest.raises(UserError, match="outside"):
        find_places({}).check_model("leads-out")


def test_a_models_own_code_runs_only_when_asked_for_at_the_start() -> None:
    settings = Settings(trust_remote_code=True)
    with pytest.raises(UserError, match="--trust-remote-code"):
        Places((Path("/"),)).check_settings(settings)
    found = find_places(name_places([], remote_code=True))
    assert found.remote_code
    found.check_settings(settings)
    assert not find_places({ALLOWED: "", REMOTE_CODE: "0"}).remote_code


def test_a_message_shows_a_hostile_path_harmlessly(workspace: Path) -> None:
    with pytest.raises(UserError) as found:
        find_places({}).confine("/\x1b[31m\u202e" + "x" * 10_000)
    assert "\x1b" not in str(found.value) and "\u202e" not in str(found.value) and len(str(found.value)) < 300


def test_a_password_is_kept_as_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse battery\nnot this\n")
    hashed = hash_password(read_password(str(file)))
    assert "correct" not in hashed
    assert check_password("correct horse battery", hashed)
    assert not check_password("correct horse batterx", hashed)
    assert not check_password("", hashed)
    file.write_text("short\n")
    with pytest.raises(UserError, match="has 5 characters"):
        read_password(str(file))
    with pytest.raises(UserError, match="cannot read"):
        read_password(str(tmp_path / "none"))
