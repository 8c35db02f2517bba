"""`manifest.json`: what a published version holds, where it comes from, and how it scored."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
)

from adapters.durable_files import open_regular
from propulsion.adapter_folder import CONFIG_FILE, WEIGHTS_FILE
from propulsion.errors import AdapterCorruptError

README_FILE = "README.md"
MANIFEST_FILE = "manifest.json"
REQUIRED_FILES = (CONFIG_FILE, WEIGHTS_FILE)
KNOWN_FILES = (*REQUIRED_FILES, README_FILE)


class FileEntry(BaseModel):
    """Size and checksum of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the content, in hex.")
    bytes: int = Field(ge=0, description="Size in bytes.")


def _check_files(files: dict[str, FileEntry]) -> dict[str, FileEntry]:
    if missing := [file for file in REQUIRED_FILES if file not in files]:
        raise ValueError(f"{', '.join(missing)} missing")
    if unknown := [file for file in files if file not in KNOWN_FILES]:
        raise ValueError(f"unknown file {unknown[0]!r}")
    return files


class Manifest(BaseModel):
    """The content of one `manifest.json`; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = Field(default=1, description="Version of this file's format.")
    name: str = Field(description="Adapter name: the folder above the version.")
    version: str = Field(description="v1, v2, …: the folder that holds this file.")
    created: AwareDatetime = Field(description="When it was published: UTC, ISO 8601.")
    files: Annotated[dict[str, FileEntry], AfterValidator(_check_files)] = Field(
        description="Every file of the version but this one."
    )
    base_model_name_or_path: str | None = Field(
        default=None, description="The base model, as adapter_config.json names it."
    )
    base_fingerprint: str | None = Field(
        default=None,
        pattern=r"^sha256:[0-9a-f]{64}$",
        description="Fingerprint of the base model's weights; none fits any base.",
    )
    peft_type: str = Field(description="Method, as PEFT names it: PROPULSION, LORA, ….")
    metrics: dict[str, JsonValue] = Field(default={}, description="Evaluation results.")
    training_config: dict[str, JsonValue] = Field(default={}, description="The run's settings.")
    parent: str | None = Field(
        default=None, description="name@version this one was trained on from."
    )
    num_parameters: int = Field(ge=0, description="Numbers in adapter_model.safetensors.")

    @property
    def num_bytes(self) -> int:
        """Size of all files but the manifest."""
        return sum(file.bytes for file in self.files.values())


def load_manifest(path: Path, *, name: str, version: str) -> Manifest:
    """Read the manifest of one version from a local folder.

    Raises:
        AdapterCorruptError: it is missing, malformed, or of another name or version.
    """
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        raise AdapterCorruptError(f"{path}: cannot be read: {error.strerror}.") from error
    return parse_manifest(data, str(path), name=name, version=version)


def parse_manifest(data: bytes, where: str, *, name: str, version: str) -> Manifest:
    """The manifest of one version from the text that lies at `where`.

    Raises:
        AdapterCorruptError: it is malformed, or of another name or version.
    """
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise AdapterCorruptError(f"{where}: not a manifest: {first_problem(error)}.") from error
    if (manifest.name, manifest.version) != (name, version):
        raise AdapterCorruptError(
            f"{where}: describes {manifest.name}@{manifest.version}, but lies in {name}@{version}; "
            "versions are not copied by hand: publish the adapter instead."
        )
    return manifest


def first_problem(error: ValidationError) -> str:
    """The first thing pydantic found wrong, as `key: message`."""
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'document'}: {problem['msg']}"
