"""A base model with an adapter folded into its weights: a plain model, saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.fingerprint import base_fingerprint
from adapters.folders import new_folder
from propulsion.errors import BaseMismatchError, ConfigError, PropulsionError

if TYPE_CHECKING:
    from adapters.store import AdapterStore
    from adapters.version import AdapterVersion

_AUTO_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
_HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
_TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)


def merge_version(
    store: AdapterStore, version: str | AdapterVersion, base: Path, out: Path
) -> AdapterVersion:
    """Fold a version into its base model and save the result, with the base's tokenizer.

    The weights keep the base's dtype; the whole model is held in memory.

    Args:
        store: where the version is.
        version: reference or version, of Propulsion, (IA)³ or LoRA.
        base: local folder of the base model.
        out: new folder, which appears when it is whole.

    Raises:
        AdapterNotFoundError: the store has no such version.
        AdapterCorruptError: it is damaged.
        BaseMismatchError: it was trained for another base, or does not fit this one.
        ConfigError: the base cannot be loaded, or `out` is not free.
        PropulsionError: the adapter cannot be merged, as one that pools by max or min over several
            vectors; or `out` cannot be written.
    """
    with store.hold(version) as held, new_folder(out) as staging:
        held.require_base(base_fingerprint(base), base)
        model = _merged(held, base)
        model.save_pretrained(staging)
        _copy_tokenizer(base, staging)
        return held


def _merged(version: AdapterVersion, base: Path) -> Any:
    from peft import PeftConfig, PeftModel

    from propulsion.registration import register_with_peft

    register_with_peft()
    config = PeftConfig.from_pretrained(str(version.path))
    model = _load_base(base, version.path, config.task_type)
    try:
        adapted = PeftModel.from_pretrained(model, str(version.path), config=config)
        return adapted.merge_and_unload(safe_merge=True)
    except PropulsionError:
        raise
    except (KeyError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise BaseMismatchError(
            f"{version.reference} does not fit the base model {base}: {why}"
        ) from error


def _load_base(base: Path, adapter: Path, task_type: str | None) -> Any:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(base)
        name = _AUTO_CLASSES.get(task_type or "") or (config.architectures or ["AutoModel"])[0]
        if name in ("AutoModelForSequenceClassification", "AutoModelForTokenClassification"):
            labels = _num_labels(adapter)
            if labels is not None:
                config.num_labels = labels
        return getattr(transformers, name).from_pretrained(base, config=config, dtype="auto")
    except (OSError, ValueError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"The base model in {base} cannot be loaded: {error}") from error


def _num_labels(adapter: Path) -> int | None:
    """How many labels the head saved with an adapter has; None if there is no head."""
    from adapters.safetensors_header import read_header
    from propulsion.adapter_folder import WEIGHTS_FILE

    for name, tensor in read_header(adapter / WEIGHTS_FILE).items():
        if name.endswith(_HEADS):
            return tensor.shape[0]
    return None


def _copy_tokenizer(base: Path, out: Path) -> None:
    import shutil

    for pattern in _TOKENIZER_FILES:
        for file in base.glob(pattern):
            if file.is_file() and not (out / file.name).exists():
                shutil.copyfile(file, out / file.name)
