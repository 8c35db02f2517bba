"""The configurations of the methods that PEFT has."""

from __future__ import annotations

from typing import Any

from propulsion.errors import ConfigError

RANK = 8
"""Of LoRA and its kin; AdaLoRA begins at 1.5 times as much and prunes to it."""
NUM_VIRTUAL_TOKENS = 20
ENCODER_SIZE = 128
"""Hidden size of P-tuning's MLP."""


def peft_config(method: str, model_type: str, task_type: str, steps: int) -> Any:
    """The configuration of a method of PEFT.

    The layers are those that PEFT takes for the architecture, or all linear ones if it knows none.

    Args:
        method: its name in `METHODS`.
        model_type: of the base's configuration.
        task_type: PEFT's name of the kind of task.
        steps: of the run, by which AdaLoRA prunes.

    Raises:
        ConfigError: the run has too few steps for the method.
    """
    import peft
    from peft.utils import constants

    known = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    targets = sorted(known[model_type]) if model_type in known else "all-linear"
    if method in ("prompt-tuning", "prefix-tuning", "p-tuning"):
        kinds = {
            "prompt-tuning": peft.PromptTuningConfig,
            "prefix-tuning": peft.PrefixTuningConfig,
            "p-tuning": peft.PromptEncoderConfig,
        }
        options = {} if method == "prompt-tuning" else {"encoder_hidden_size": ENCODER_SIZE}
        return kinds[method](task_type=task_type, num_virtual_tokens=NUM_VIRTUAL_TOKENS, **options)
    if method == "ia3":
        if model_type in constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING:
            return peft.IA3Config(task_type=task_type)
        return peft.IA3Config(task_type=task_type, target_modules=targets, feedforward_modules=[])
    if method == "adalora":
        return _adalora(task_type, targets, steps)
    if method == "lora":
        return peft.LoraConfig(
            task_type=task_type, r=RANK, lora_alpha=2 * RANK, target_modules=targets
        )
    kind = peft.LoKrConfig if method == "lokr" else peft.LoHaConfig
    return kind(task_type=task_type, r=RANK, alpha=2 * RANK, target_modules=targets)


def _adalora(task_type: str, targets: Any, steps: int) -> Any:
    from peft import AdaLoraConfig

    if steps < 3:
        raise ConfigError(f"AdaLoRA prunes over 3 steps at least: training.steps is {steps}")
    return AdaLoraConfig(
        task_type=task_type,
        init_r=RANK * 3 // 2,
        target_r=RANK,
        lora_alpha=2 * RANK,
        tinit=steps // 10,
        tfinal=steps * 3 // 10,
        deltaT=max(1, steps // 100),
        total_step=steps,
        # The loss is taken from the logits, without the model's own; so this would be left out.
        orth_reg_weight=0.0,
        target_modules=targets,
    )
