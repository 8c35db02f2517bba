"""Which heads of adapters the engine of a worker can run, and the bank it runs them from."""

from typing import Any

import torch
from torch import nn

from propulsion.errors import BaseMismatchError, HeadNotServedError
from propulsion.heads import SavedHead, saved_head
from serving import vllm_compat, vllm_compat_pooling
from serving.worker.head_bank import HeadBank
from serving.worker.source import adapter_folders

_CLASSIFY_OPTIONS = "-- --runner pooling --convert classify"


class Heads:
    """The heads that adapters bring, checked against what the engine does.

    An engine that classifies runs them. One that embeds needs none, and leaves them out. One that
    generates refuses them: an adapter that was trained to classify would write nonsense.

    Args:
        model: the loaded model.
        vllm_config: of the engine.
        num_slots: of the z-bank.
        max_labels: most labels of an adapter's head; as many as the base's head has always fit.
        device: of the model.

    Attributes:
        bank: None unless the engine classifies by a head of one linear layer.
        base_has_one: false if the engine classifies and its base came without a head.
    """

    def __init__(
        self,
        model: nn.Module,
        vllm_config: Any,
        num_slots: int,
        max_labels: int,
        device: torch.device,
    ):
        tasks = vllm_compat_pooling.pooling_tasks(model, vllm_config)
        self._generates = not tasks
        self._classifies = not tasks.isdisjoint(vllm_compat_pooling.CLASSIFYING_TASKS)
        self.base_has_one = not vllm_compat_pooling.lacks_head(model)
        self.bank: HeadBank | None = None
        pooler_heads = vllm_compat_pooling.classifying_heads(model)
        # vLLM wraps the classifier for LoRA, in some of the heads.
        classifiers = {id(getattr(h.classifier, "base_layer", h.classifier)) for h in pooler_heads}
        found = [(name, m) for name, m in model.named_modules() if id(m) in classifiers]
        sizes = vllm_compat_pooling.linear_sizes(found[0][1]) if len(found) == 1 else None
        if sizes is None:
            return
        self._module = found[0][0].removesuffix(".base_layer")
        self._renamed = vllm_compat.module_renamer(model)
        self.bank = HeadBank(sizes[0], max(sizes[1], max_labels), num_slots, device)
        for head in pooler_heads:
            head.register_forward_hook(self.bank.answer)

    def of(self, path: str) -> SavedHead | None:
        """The head that requests for the adapter at a LoRARequest's path are answered with.

        Returns:
            None for the base's head, or none at all.

        Raises:
            AdapterCorruptError: the adapter's files are damaged.
            BaseMismatchError: the head does not fit the served model.
            ConfigError: the adapter holds modules beside its scales that are no linear head.
            HeadNotServedError: this engine cannot run it, or has none to run.
        """
        if not (self._generates or self._classifies):
            return None
        folders = adapter_folders(path)
        heads = [head for folder, _ in folders if (head := saved_head(folder)) is not None]
        if not heads:
            if not self.base_has_one:
                raise HeadNotServedError(
                    "neither it nor the base model has a classification head: ask for an adapter "
                    "that was trained to classify"
                )
            return None
        if self._generates:
            raise HeadNotServedError(
                f"it has a head of its own ({heads[0].module}), which a server that generates text "
                f"does not use: a classifier needs one started with `{_CLASSIFY_OPTIONS}`"
            )
        if len(folders) > 1 or folders[0][1] != 1.0:
            raise HeadNotServedError("it has a head of its own, and heads cannot be blended")
        self._check(heads[0])
        return heads[0]

    def _check(self, head: SavedHead) -> None:
        if self.bank is None:
            raise HeadNotServedError(
                "it has a head of its own, and the base model's is not a single linear layer that "
                "another could stand in for"
            )
        if self._renamed(head.module) != self._module:
            raise BaseMismatchError(
                f"the adapter's head is {head.module!r}, that of the served base model "
                f"{self._module!r}: train the adapter on this base"
            )
        if head.weight.shape[1] != self.bank.hidden_size:
            raise BaseMismatchError(
                f"the adapter's head {head.module!r} reads vectors of {head.weight.shape[1]}, the "
                f"served base model gives {self.bank.hidden_size}: train the adapter on this base"
            )
        if head.num_labels > self.bank.max_labels:
            raise HeadNotServedError(
                f"its head has {head.num_labels} labels, and this server takes up to "
                f"{self.bank.max_labels}: start it with --max-head-labels {head.num_labels}"
            )
