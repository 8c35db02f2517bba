"""The section `deepspeed`: where weights lie and in which precision."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from trainer.config.section import Section

Offload = Literal["cpu", "nvme"]


class DeepSpeedSection(Section):
    """How DeepSpeed runs it."""

    stage: Literal[0, 1, 2, 3] = Field(2, description="ZeRO stage; 3 partitions the base too.")
    dtype: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Of the base and activations; what is trained stays in fp32."
    )
    quantization: Literal["int8", "nf4"] | None = Field(
        None, description="Load the base in 8 or 4 bits with bitsandbytes; not with stage 3."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in backward instead of keeping them."
    )
    offload_optimizer: Offload | None = Field(
        None, description="Keep the optimiser's state outside the GPU; stages 1 to 3."
    )
    offload_param: Offload | None = Field(
        None, description="Keep the base's partitions outside the GPU; stage 3."
    )
    nvme_path: Path | None = Field(None, description="Folder for what is offloaded to NVMe.")

    @model_validator(mode="after")
    def _settings_go_together(self) -> DeepSpeedSection:
        if self.offload_param is not None and self.stage != 3:
            raise ValueError("offload_param needs stage 3")
        if self.offload_optimizer is not None and self.stage == 0:
            raise ValueError("offload_optimizer needs stage 1, 2 or 3")
        if self.offload_optimizer == "nvme" and self.stage != 3:
            raise ValueError("offload_optimizer: nvme needs stage 3")
        if "nvme" in (self.offload_optimizer, self.offload_param) and self.nvme_path is None:
            raise ValueError("offloading to nvme needs nvme_path")
        if self.quantization is not None and self.stage == 3:
            raise ValueError("a quantised base cannot be partitioned: use stage 0, 1 or 2")
        return self
