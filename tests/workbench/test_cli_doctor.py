"""What `doctor` finds in an installation that is whole, damaged or bare."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest

from probes.errors import UserError
from workbench import doctor

WEIGHTS = b"weights"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped folder that is whole as far as its hashes and sizes go."""
    files = {
        "model/model.safetensors": WEIGHTS,
        "bank/bank.json": json.dumps({"model_sha256": hashlib.sha256(WEIGHTS).hexdigest()}).encode(),
        "memory/memory.json": json.dumps({"model_sha256": hashlib.sha256(WEIGHTS).hexdigest()}).encode(),
        "shipped.json": json.dumps({"bytes": {"model/model.safetensors": len(WEIGHTS)}}).encode(),
    }
    for name, data in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    monkeypatch.setattr(doctor, "find_shipped", lambda: tmp_path)
    monkeypatch.setattr(doctor, "load_facts", lambda folder: ())
    return tmp_path


def judge(name: str, findings: list[doctor.Finding]) -> doctor.Finding:
    """The finding of a name."""
    return next(finding for finding in findings if finding.name == name)


def test_a_whole_model_is_ok(shipped: Path) -> None:
    assert judge("shipped model", list(doctor.examine_shipped())).state == "ok"


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        ("model/model.safetensors", b"weight", "has 6 bytes instead of 7"),
        ("model/model.safetensors", b"Weights", "made for another model"),
        ("model/model.safetensors", None, "is missing"),
        ("bank/bank.json", b"{", "bank/bank.json was made for another model, or is damaged"),
        ("memory/memory.json", None, "memory/memory.json was made"),
    ],
)
def test_damage_is_named(shipped: Path, name: str, data: bytes | None, wanted: str) -> None:
    if data is None:
        (shipped / name).unlink()
    else:
        (shipped / name).write_bytes(data)
    finding = judge("shipped model", list(doctor.examine_shipped()))
    assert finding.state == "broken"
    assert wanted in finding.detail
    assert finding.remedy
    assert not doctor.is_sound([finding])


def test_a_missing_model_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise UserError("the shipped model is missing")

    monkeypatch.setattr(doctor, "find_shipped", refuse)
    assert [finding.state for finding in doctor.examine_shipped()] == ["broken"]


def test_programs_that_are_missing_are_not_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    findings = list(doctor.examine_programs())
    assert {finding.state for finding in findings} == {"missing"}
    assert all(finding.remedy for finding in findings)
    assert doctor.is_sound(findings)


def test_a_required_package_that_is_missing_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> str:
        if name == "absent":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    lines = ["present>=1", "absent<2", 'pytest>=8; extra == "test"']
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    monkeypatch.setattr(metadata, "version", find)
    findings = {finding.name: finding.state for finding in doctor.examine_packages()}
    assert findings == {"memory-circuits": "ok", "present": "ok", "absent": "broken"}


def test_a_runs_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_CIRCUITS_RUNS", str(tmp_path / "new" / "runs"))
    assert doctor.examine_runs().state == "ok"
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MEMORY_CIRCUITS_RUNS", str(tmp_path / "file" / "runs"))
    assert doctor.examine_runs().state == "missing"
