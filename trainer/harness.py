"""Adapters as a model of lm-eval, the evaluation harness.

    python -m trainer.harness run --model propulsion --tasks boolq,piqa \\
        --model_args pretrained=BASE,adapter=boolq@latest,store=STORE
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters import AdapterStore
from propulsion.errors import ConfigError
from trainer.identity import fingerprint_of

try:
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
except ImportError as error:
    raise ConfigError("trainer.harness needs lm-eval: pip install 'lm-eval[hf]'") from error


@register_model("propulsion")
class PropulsionLM(HFLM):
    """A base model with an adapter on it, as lm-eval's model `propulsion`.

    Args:
        pretrained: the base, a folder or a hub name.
        adapter: a PEFT folder, or a reference in `store`; the bare base if not given.
        store: folder of the adapter store.
        options: of lm-eval's model `hf`, such as `dtype`, `device` and `batch_size`.

    Raises:
        ConfigError: `adapter` is no folder and there is no store.
        AdapterNotFoundError, AdapterCorruptError, BaseMismatchError: the adapter cannot be used.
    """

    def __init__(
        self,
        pretrained: str,
        adapter: str | None = None,
        store: str | None = None,
        **options: Any,
    ) -> None:
        folder = None if adapter is None else adapter_folder(adapter, store, pretrained)
        super().__init__(pretrained=pretrained, **options)
        if folder is not None:
            from peft import PeftModel

            import propulsion  # noqa: F401  registers the method with PEFT

            # HFLM's own `peft` cuts the embeddings to the tokenizer's size, which changes the
            # probabilities of a base whose vocabulary is filled up, as BLOOM's is.
            self._model = PeftModel.from_pretrained(self._model, folder).eval()


def adapter_folder(adapter: str, store: str | None, base: str) -> Path:
    """Where an adapter lies that is given by folder, or by reference in a store.

    Raises:
        ConfigError, AdapterNotFoundError, AdapterCorruptError, BaseMismatchError: as
            `PropulsionLM`.
    """
    if Path(adapter).is_dir():
        return Path(adapter)
    if store is None:
        raise ConfigError(
            f"{adapter!r} is no folder: give the folder of an adapter, or `store`, the folder of "
            "the store that it is in"
        )
    version = AdapterStore(store).verify(adapter)
    version.require_base(fingerprint_of(base), base)
    return version.path


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
