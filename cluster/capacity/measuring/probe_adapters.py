"""Adapters to measure with: of the base's shapes, with values that change next to nothing."""

from __future__ import annotations

from pathlib import Path

from propulsion.errors import ConfigError


def publish_probes(base: Path, store: Path, count: int, *, preset: str = "all") -> list[str]:
    """Publish random adapters for a base, from its configuration alone; their names.

    Args:
        base: folder of the base model.
        store: folder of the store, made if need be.
        count: how many.
        preset: the layers that they scale; all make the largest.

    Raises:
        ConfigError: the base cannot be read.
    """
    import torch
    from peft import get_peft_model
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    from adapters import AdapterStore, base_fingerprint
    from adapters.manifest import WEIGHTS_FILE
    from propulsion import PropulsionConfig

    fingerprint = base_fingerprint(base)
    try:
        config = AutoConfig.from_pretrained(base)
    except (OSError, ValueError) as error:
        raise ConfigError(f"base {base}: its configuration cannot be read ({error})") from error
    with torch.device("meta"):
        adapted = get_peft_model(
            AutoModelForCausalLM.from_config(config),
            PropulsionConfig(preset=preset, task_type="CAUSAL_LM"),
        )
    shapes = {key: value.shape for key, value in get_peft_model_state_dict(adapted).items()}
    folder = store.parent / f"{store.name}-probe"
    folder.mkdir(parents=True, exist_ok=True)
    peft_config = adapted.peft_config["default"]
    peft_config.base_model_name_or_path = str(base)
    peft_config.inference_mode = True
    peft_config.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    published, generator = AdapterStore(store), torch.Generator().manual_seed(0)
    names = [f"probe-{index:05d}" for index in range(count)]
    for name in names:
        values = {key: torch.randn(s, generator=generator) * 1e-3 for key, s in shapes.items()}
        save_file(values, folder / WEIGHTS_FILE)
        published.publish(folder, name, base_fingerprint=fingerprint)
    return names
