"""A run as something to cite: what verify finds, and a bundle whose bytes depend on the run alone."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from probes.errors import UserError
from workbench.citing import bundle_run, load_run_schema, verify_run
from workbench.cli import main
from workbench.exports_json import read_json
from workbench.runs import Run, load_run, read_about, save_run


def test_the_schema_of_runs_is_one_and_runs_obey_it(build_run: Callable[..., Run], tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(load_run_schema())
    for place, run in enumerate((build_run(), build_run(parts=2), build_run(tokens=["\ud800", "=", "<", "\x00", ""]))):
        if place < 2:
            save_run(run, tmp_path / str(place))
            checks = verify_run(tmp_path / str(place))
            assert len(checks) == 7 and all(check.holds for check in checks), checks


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change run.json by hand."""
    about = json.loads((folder / "run.json").read_text())
    change(about)
    (folder / "run.json").write_text(json.dumps(about, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


@pytest.mark.parametrize(
    ("change", "name", "found"),
    [
        (lambda about: about["circuit"]["edges"][0].update(score=99.0), "scores of the circuit", "differ"),
        (lambda about: about["circuit"]["edges"][0].update(role="o"), "schema of run.json", "'o' is not one of"),
        (lambda about: about["model"].update(sha256="short"), "schema of run.json", "$.model.sha256"),
        (lambda about: about["files"].update({"scores.npz": "0" * 64}), "SHA-256 of scores.npz", "told: 0000"),
        (lambda about: about.update(version=9), "format and version", "version 9"),
        (lambda about: about.update(extra=1), "schema of run.json", "'extra' was unexpected"),
    ],
)
def test_what_was_edited_is_found(
    change: Callable[[dict[str, Any]], None], name: str, found: str, run_folder: Path
) -> None:
    edit(run_folder, change)
    broken = [check for check in verify_run(run_folder) if not check.holds]
    assert broken[0].name == name and found in broken[0].found
    with pytest.raises(UserError, match="does not verify"):
        bundle_run(run_folder)


def test_a_flipped_byte_and_other_spaces_are_found(run_folder: Path) -> None:
    data = bytearray((run_folder / "recording.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (run_folder / "recording.npz").write_bytes(bytes(data))
    assert [check.name for check in verify_run(run_folder) if not check.holds] == ["SHA-256 of recording.npz"]
    data[len(data) // 2] ^= 1
    (run_folder / "recording.npz").write_bytes(bytes(data))
    (run_folder / "run.json").write_bytes((run_folder / "run.json").read_bytes() + b"\n")
    assert [check.name for check in verify_run(run_folder) if not check.holds] == ["canonical bytes"]


def test_a_bundle_is_the_same_bytes_and_holds_what_it_lists(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "quality.json").write_text("{}")
    (run_folder / "private.txt").write_text("not ours")
    (run_folder / "link.json").symlink_to("/etc/hostname")
    data = bundle_run(run_folder)
    assert data == bundle_run(run_folder)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
        archive.extractall(tmp_path / "out")
    assert set(files) == {
        "run/run.json", "run/scores.npz", "run/recording.npz", "run/quality.json", "figure.svg", "edges.csv",
        "circuit.json", "caption.txt", "environment.txt", "README.txt", "SHA256SUMS",
    }  # fmt: skip
    for line in files["SHA256SUMS"].decode().splitlines():
        told, name = line.split("  ", 1)
        assert hashlib.sha256(files[name]).hexdigest() == told
    assert all(check.holds for check in verify_run(tmp_path / "out" / "run"))
    assert read_json(files["circuit.json"]).circuit == load_run(run_folder).circuit
    assert b"numpy==" in files["environment.txt"]
    assert str(read_about(run_folder)["command"]).encode() in files["README.txt"]
    assert str(run_folder).encode() not in data


def test_verify_and_bundle_on_the_command_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run.zip"
    assert main(["verify", str(run_folder)]) == 0
    assert capsys.readouterr().out.endswith("verified\n")
    assert main(["bundle", str(run_folder), "--out", str(out), "--no-environment", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert "environment.txt" not in zipfile.ZipFile(out).namelist()
    (run_folder / "scores.npz").unlink()
    assert main(["verify", str(run_folder), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verified"] is False
    assert main(["bundle", str(run_folder), "--out", str(tmp_path / "no.zip")]) == 2
    assert not (tmp_path / "no.zip").exists()
