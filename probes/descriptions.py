"""What lies beside the tensors of a store of memories: a JSON description, checked before anything else is read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.strict_json import parse_json


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """A file to read. Raises OSError when it is missing, or a device or pipe, which may have no end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        yield file


def hash_file(path: Path) -> str:
    """SHA-256 of a file. Raises OSError when it cannot be read."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_description(path: Path, file_format: str, versions: tuple[int, ...] = (1,)) -> dict[str, Any]:
    """JSON object that describes a store, checked for format and version. Raises UserError."""
    try:
        with open_file(path) as file:
            about = parse_json(file.read())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(about, dict) or about.get("format") != file_format:
        raise UserError(f"{path} is not {file_format}")
    if about.get("version") not in versions:
        raise UserError(
            f"{path} is {file_format} version {str(about.get('version'))[:20]} and this release reads "
            f"{' and '.join(map(str, versions))}: install a release of memory-circuits that reads it"
        )
    return about


def hash_description(about: dict[str, Any]) -> str:
    """SHA-256 of a description without its own hash, keys in order."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def seal_description(about: dict[str, Any]) -> bytes:
    """The description as it lies in its file, with the hash of its contents."""
    # Through JSON once, so that the hash is of what will be read.
    whole = {**about, "sha256": hash_description(json.loads(json.dumps(about)))}
    return (json.dumps(whole, indent=1) + "\n").encode()


def open_seal(about: dict[str, Any]) -> None:
    """Take the hash out of a sealed description. Raises KeyError or ValueError unless it is that of the contents."""
    if about.pop("sha256") != hash_description(about):
        raise ValueError("its contents are not those that were written")


def require_model(folder: Path, written_by: object, model_sha256: str) -> None:
    """Raise UserError unless a store was made for the loaded model."""
    if written_by != model_sha256:
        raise UserError(
            f"{folder} was made for another model (its model hash is {str(written_by)[:12]}, the loaded model's "
            f"{model_sha256[:12]}): use the model it was made for, or none"
        )
