"""Whether a published version still is what was published."""

import os
from typing import Never

from adapters.durable_files import hash_stream, open_regular
from adapters.manifest import MANIFEST_FILE
from adapters.validate import validate_folder
from adapters.version import AdapterVersion
from propulsion.errors import AdapterCorruptError


def verify_version(version: AdapterVersion) -> AdapterVersion:
    """Read every file of a version from disk and compare it with a freshly read manifest.

    Raises:
        AdapterCorruptError: a file is missing, unlisted, changed or malformed; named.
    """
    version = AdapterVersion(version.name, version.version, version.path)
    manifest = version.manifest
    for file in manifest.files:
        _check_file(version, file)
    for entry in os.listdir(version.path):
        if entry not in manifest.files and entry != MANIFEST_FILE and not entry.startswith("."):
            _refuse(version, entry, "is not in the manifest; remove it")
    try:
        facts = validate_folder(version.path)
    except OSError as error:
        raise AdapterCorruptError(f"{version.path}: cannot be read: {error}.") from error
    for key, value in vars(facts).items():
        if getattr(manifest, key) != value:
            _refuse(version, MANIFEST_FILE, f"says otherwise than the adapter's files about {key}")
    return version


def _check_file(version: AdapterVersion, file: str) -> None:
    expected = version.manifest.files[file]
    try:
        with open_regular(version.path / file) as content:
            size = os.fstat(content.fileno()).st_size
            if size != expected.bytes:
                _refuse(
                    version, file, f"is not whole: expected {expected.bytes} bytes, found {size}"
                )
            sha256 = hash_stream(content)
    except OSError as error:
        _refuse(version, file, f"cannot be read: {error.strerror}", error)
    if sha256 != expected.sha256:
        _refuse(version, file, f"has changed: expected sha256 {expected.sha256}, found {sha256}")


def _refuse(
    version: AdapterVersion, file: str, why: str, cause: BaseException | None = None
) -> Never:
    raise AdapterCorruptError(
        f"{version.path / file} {why}. Publish the adapter again, or restore the file."
    ) from cause
