"""Text that a model generates, and the tasks that are judged by it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from trainer.data.records import Record
from trainer.tasks.padding import pad_rows
from trainer.tasks.passes import batches_of_like_length
from trainer.tasks.task import Task


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    num_beams: int = 1,
    agree: Callable[[int], int] = lambda number: number,
    synced: bool = False,
) -> list[str]:
    """The most likely continuation of each prompt, or what a decoder writes for it, as text.

    Args:
        model: a causal LM, or an encoder-decoder, which then reads the prompts as its source.
        prompts: token ids, at least one each.
        max_new_tokens: a text ends there, or before an end-of-sequence token.
        num_beams: 1 is greedy.
        agree: as in `Task.predict`.
        synced: as in `Task.predict`.
    """
    stops = _end_tokens(model, tokenizer)
    device = next(model.parameters()).device
    encoder_decoder = bool(model.config.is_encoder_decoder)
    texts = [""] * len(prompts)
    for batch in batches_of_like_length([len(p) for p in prompts], batch_size, agree):
        rows = [prompts[i] for i in batch] or [[tokenizer.eos_token_id]]
        # A decoder goes on from the end of its prompt. An encoder counts positions from the start.
        left = not encoder_decoder
        input_ids = pad_rows(rows, tokenizer.pad_token_id, left=left)
        attention_mask = pad_rows([[1] * len(row) for row in rows], 0, left=left)
        generated = model.generate(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=num_beams,
            use_cache=True,
            # A base's generation_config.json may ask for these, and adapters on it would be
            # compared by something else than what they find most likely.
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            min_length=0,
            eos_token_id=stops,
            pad_token_id=tokenizer.pad_token_id,
            synced_gpus=synced,
        )
        start = 1 if encoder_decoder else input_ids.shape[1]
        for index, row in zip(batch, generated[:, start:].tolist(), strict=False):
            end = next((at for at, token in enumerate(row) if token in stops), len(row))
            texts[index] = tokenizer.decode(row[:end], skip_special_tokens=True)
    return texts


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokenizer's, and those that the base's generation_config.json names, as vLLM has it."""
    named = getattr(model.generation_config, "eos_token_id", None)
    named = named if isinstance(named, list) else [named]
    return sorted({token for token in (tokenizer.eos_token_id, *named) if token is not None})


class GeneratingTask(Task):
    """A task whose predictions are generated texts, by this model or by a server with it.

    With a server: `complete(url, name, task.prompts(records), task.max_new_tokens)` of
    `trainer.tasks.server` gives the predictions that `score` takes.
    """

    num_beams = 1

    @property
    def max_new_tokens(self) -> int:
        """Most tokens of a generated text."""
        return int(self.settings.max_new_tokens)

    @abstractmethod
    def prompts(self, records: Sequence[Record]) -> list[list[int]]:
        """Token ids that the model goes on from, or that its encoder reads."""

    def generate(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        *,
        batch_size: int,
        agree: Callable[[int], int] = lambda number: number,
        synced: bool = False,
    ) -> list[str]:
        """A text for each prompt; arguments as in `predict`."""
        return generate(
            model,
            self.tokenizer,
            prompts,
            max_new_tokens=self.max_new_tokens,
            batch_size=batch_size,
            num_beams=self.num_beams,
            agree=agree,
            synced=synced,
        )

    def predict(
        self,
        model: Any,
        records: Sequence[Record],
        *,
        batch_size: int,
        agree: Callable[[int], int] = lambda number: number,
        synced: bool = False,
    ) -> list[str]:
        """The text that the model generates for each record."""
        prompts = self.prompts(records)
        return self.generate(model, prompts, batch_size=batch_size, agree=agree, synced=synced)


def room_for_prompt(max_length: int, max_new_tokens: int) -> int:
    """Tokens of a prompt, so that it and what is generated stay within `max_length`."""
    return max(8, max_length - max_new_tokens)
