"""What a choice of model and memories lacks is found without loading anything."""

from __future__ import annotations

import json
from pathlib import Path

from workbench.model_checks import find_missing, inspect_settings
from workbench.settings import Settings


def write(folder: Path, **files: str) -> Path:
    """A folder with these files; two underlines in a name stand for its dot."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def list_states(settings: Settings) -> list[str]:
    """States of all notes."""
    return [note.state for note in inspect_settings(settings)]


def test_the_shipped_model_is_whole() -> None:
    assert list_states(Settings()) == ["ok", "ok"]


def test_a_folder_says_what_it_lacks(tmp_path: Path) -> None:
    config = json.dumps({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 8})
    whole = write(tmp_path / "whole", config__json=config, model__safetensors="x", tokenizer__json="{}")
    assert find_missing(inspect_settings(Settings(model=str(whole)))) == ""
    for files, words in (
        ({}, "config.json"),
        ({"config__json": "{"}, "not JSON"),
        ({"config__json": "[]"}, "no object"),
        ({"config__json": config, "tokenizer__json": "{}"}, "no weights"),
        ({"config__json": config, "tokenizer__json": "{}", "pytorch_model__bin": "x"}, "pickled"),
        ({"config__json": config, "model__safetensors": "x"}, "no tokenizer"),
    ):
        folder = write(tmp_path / words, **files)
        assert words in find_missing(inspect_settings(Settings(model=str(folder))))
    bank = write(tmp_path / "bank", bank__json='{"d_model": 9}')
    assert "width 9" in find_missing(inspect_settings(Settings(model=str(whole), bank=str(bank))))
    same = write(tmp_path / "same", bank__json='{"d_model": 8}')
    assert find_missing(inspect_settings(Settings(model=str(whole), bank=str(same)))) == ""
    assert "no memory" in find_missing(inspect_settings(Settings(memory=str(bank))))


def test_names_and_files_that_cannot_be(tmp_path: Path) -> None:
    assert "no folder" in find_missing(inspect_settings(Settings(model="/no/such/folder")))
    assert find_missing(inspect_settings(Settings(model="someone/some-model", bank="none", memory="none"))) == ""
    assert "no folder" in find_missing(inspect_settings(Settings(bank=str(tmp_path / "gone"))))
    assert "no file" in find_missing(inspect_settings(Settings(text=str(tmp_path / "gone.txt"))))
