"""Loading is refused before it begins when memory is too small, and never for what fits or cannot be told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from probes import memory_needs, models
from probes.errors import UserError
from probes.memory_limits import find_available
from probes.memory_needs import count_parameters, estimate_need, list_weights, read_header, require_room
from probes.models import load_model
from tests.checkpoints import MIXTURES, SHAPES, write_checkpoint
from workbench import model_checks
from workbench.library import find_shipped
from workbench.model_checks import find_missing, inspect_settings
from workbench.settings import Settings

MEBIBYTE = 1 << 20


def write(root: Path, files: dict[str, str]) -> Path:
    """A system's files below a folder."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   500 kB\n"}, 500 << 10),
        (
            {
                "proc/meminfo": "MemAvailable: 500 kB\n",
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "1000\n",
                "sys/fs/cgroup/a/memory.current": "900\n",
                "sys/fs/cgroup/a/memory.stat": "anon 1\nactive_file 100\ninactive_file 50\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/b/memory.current": "5\n",
            },
            250,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,memory:/elsewhere\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1200\n",
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 10\n",
            },
            0,
        ),
    ],
)
def test_what_is_available_is_the_least_that_system_and_groups_leave(
    tmp_path: Path, files: dict[str, str], wanted: int | None
) -> None:
    assert find_available(write(tmp_path, files)) == wanted


@pytest.mark.parametrize("shape", SHAPES)
def test_headers_and_configuration_count_the_parameters(shape: str) -> None:
    folder = write_checkpoint(shape)
    need = estimate_need(folder, "float32")
    assert need is not None and need.source == "the weights' headers"
    files = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert 0.8 * files < need.weights <= files
    half = estimate_need(folder, "bfloat16")
    assert half is not None and 2 * half.weights == need.weights
    assert (need.peak - memory_needs.ALWAYS >= 1.99 * need.weights) == (shape in MIXTURES)
    counted = count_parameters(json.loads((folder / "config.json").read_text()))
    assert 4 * counted == pytest.approx(need.weights, rel=0.35)


def test_shards_are_those_of_the_index(tmp_path: Path) -> None:
    whole = write_checkpoint("llama") / "model.safetensors"
    for name in ("one", "two", "other"):
        shutil.copy(whole, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "../../etc/passwd"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [path.name for path in list_weights(tmp_path)] == ["one.safetensors", "two.safetensors"]


@pytest.mark.parametrize("shape", [[10**15], [1, 2], [-1]])
def test_a_lying_header_is_not_believed(tmp_path: Path, shape: list[int]) -> None:
    folder = tmp_path / "lying"
    shutil.copytree(write_checkpoint("llama"), folder)
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(ValueError, match="header"):
        read_header(folder / "model.safetensors")
    need = estimate_need(folder, "float32")
    assert need is not None and need.source == "config.json"
    assert need.weights < MEBIBYTE
    (folder / "config.json").write_text("{}")
    assert estimate_need(folder, "float32") is None


def test_too_little_memory_is_said_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(write_checkpoint("llama"))

    def boot(*_: object) -> None:
        raise AssertionError("the model was loaded")

    for module in (memory_needs, model_checks):
        monkeypatch.setattr(module, "find_available", lambda: MEBIBYTE)
    monkeypatch.setattr(models, "boot", boot)
    with pytest.raises(UserError, match=r"needs about .* GiB .* 0\.001 GiB of memory are available.*--dtype bfloat16"):
        load_model(folder, device="cpu")
    with pytest.raises(UserError, match="choose a smaller model"):
        load_model(folder, dtype="bfloat16", device="cpu")
    assert "GiB of memory are available" in find_missing(inspect_settings(Settings(model=folder, device="cpu")))


def test_a_small_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (MEBIBYTE, 1 << 40))
    with pytest.raises(UserError, match=r"0\.001 GiB of cuda:0's memory are available"):
        require_room("model", write_checkpoint("llama"), "float32", "cuda:0")


def test_what_fits_or_cannot_be_told_is_let_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory_needs, "find_available", lambda: 64 * MEBIBYTE)
    require_room("shipped", find_shipped() / "model", "float32", "cpu")
    require_room("someone/never-fetched", None, "float32", "cpu")
    require_room("empty", tmp_path, "float32", "cpu")
    monkeypatch.setattr(memory_needs, "find_available", lambda: None)
    require_room("model", write_checkpoint("llama"), "float32", "cpu")
