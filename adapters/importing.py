"""Adapters of other methods and places into a store: folders of PEFT, local or on the hub."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from adapters.manifest import KNOWN_FILES
from adapters.reference import LATEST
from adapters.store import AdapterStore
from adapters.version import AdapterVersion
from propulsion.adapter_folder import CONFIG_FILE, read_config_values
from propulsion.errors import ConfigError

_AS_THEY_ARE = ("PROPULSION", "LORA")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class _Source:
    folder: Path
    imported_from: dict[str, str]


def import_adapter(
    store: AdapterStore,
    source: str | Path,
    name: str,
    *,
    revision: str | None = None,
    base_fingerprint: str | None = None,
    aliases: Sequence[str] = (LATEST,),
) -> AdapterVersion:
    """Publish a PEFT adapter as the next version of `name`.

    (IA)³ becomes the Propulsion adapter of degree 1 that does the same; Propulsion and LoRA are
    kept as they are.

    Args:
        store: where to.
        source: folder, or the name `owner/name` of a repository on the hub; a folder of that name
            goes first. Only the adapter's JSON and safetensors are taken, never pickles.
        name: the adapter's name in the store.
        revision: branch, tag or commit on the hub.
        base_fingerprint: of the base it was trained on; without it, any base is accepted.
        aliases: moved to the new version.

    Raises:
        ConfigError: the source is neither a folder nor a name on the hub that can be reached, is of
            another method, or a name is malformed.
        AdapterCorruptError: it holds no valid adapter.
        PropulsionError: as `AdapterStore.publish`.
    """
    with _opened(source, revision) as found, TemporaryDirectory(prefix="propulsion-") as temporary:
        peft_type = read_config_values(found.folder)["peft_type"]
        if peft_type == "IA3":
            from propulsion.interchange import import_ia3

            folder = import_ia3(found.folder, Path(temporary, "adapter"))
        elif peft_type in _AS_THEY_ARE:
            folder = found.folder
        else:
            raise ConfigError(
                f"{found.folder / CONFIG_FILE}: peft_type {peft_type!r} cannot be served; "
                "PROPULSION, IA3 and LORA adapters can be imported."
            )
        return store.publish(
            folder,
            name,
            base_fingerprint=base_fingerprint,
            training_config={"imported_from": {**found.imported_from, "peft_type": peft_type}},
            aliases=aliases,
        )


@contextmanager
def _opened(source: str | Path, revision: str | None) -> Iterator[_Source]:
    if Path(source).is_dir():
        if revision is not None:
            raise ConfigError(f"{source} is a folder here, which has no revision {revision!r}.")
        yield _Source(Path(source), {"folder": str(source)})
        return
    name = str(source)
    if Path(source).exists() or not _HUB_NAME.fullmatch(name):
        raise ConfigError(
            f"{name} is neither a folder nor a name on the hub (owner/name): give the folder that "
            "PEFT saved the adapter in."
        )
    folder = _download(name, revision)
    # The hub keeps a snapshot in a folder named after its commit.
    yield _Source(folder, {"hub": name, "commit": folder.name})


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = name if revision is None else f"{name} at {revision}"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(KNOWN_FILES)))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ConfigError(
            f"There is no folder {name}, and the hub has no {where}, or it is not yours to read: "
            "check the name, and HF_TOKEN for a private one."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"There is no folder {name}, and {where} cannot be downloaded: the hub cannot be "
            "reached, or HF_HUB_OFFLINE is set. Download it elsewhere and give its folder."
        ) from error
