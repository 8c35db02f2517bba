"""What a model reads of a text: the form of its prompt, and its chat template."""

from __future__ import annotations

import dataclasses
from typing import Any

from propulsion.errors import ConfigError
from trainer.config.data import DataSection
from trainer.config.formats import PublishedFormat
from trainer.data.published import ALPACA, PLAIN, PUBLISHED
from trainer.data.records import Example


def prompt_form(data: DataSection) -> str:
    """The prompt around a text, with `{text}` once and perhaps `{text_pair}`.

    The run's own; else that of the named data set, without its instruction headings where the chat
    template says who speaks; else the text and a line break.
    """
    if data.prompt is not None:
        return data.prompt
    named = isinstance(data.records, PublishedFormat)
    form = PUBLISHED[data.records.name].prompt if named else PLAIN
    return "{text}" if data.chat_template and form in (ALPACA, PLAIN) else form


def fill(form: str, text: str, text_pair: str | None = None) -> str:
    """A prompt of the form; a second text that has no place of its own follows on a new line."""
    if text_pair is not None and "{text_pair}" not in form:
        text, text_pair = f"{text}\n{text_pair}", None
    before, _, after = form.partition("{text}")
    # Each part by itself: a text may hold the words {text_pair}.
    before, after = (part.replace("{text_pair}", text_pair or "") for part in (before, after))
    return before + text + after


def apply_chat_template(tokenizer: Any, example: Example) -> Example:
    """The example with its prompt as the tokenizer's chat template writes it.

    The turns are the example's messages, or its prompt as the user's; the opening of the
    assistant's turn follows. A start-of-text token that the tokenizer adds itself is left out.

    Raises:
        ConfigError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise ConfigError(
            f"data.chat_template: the tokenizer of {tokenizer.name_or_path!r} has no chat "
            "template; take a chat model, or leave the option out"
        )
    turns = example.messages or (("user", example.prompt.strip()),)
    prompt: str = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns],
        tokenize=False,
        add_generation_prompt=True,
    )
    bos = tokenizer.bos_token
    if bos and prompt.startswith(bos):
        adds_bos = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
        prompt = prompt.removeprefix(bos) if adds_bos else prompt
    return dataclasses.replace(example, prompt=prompt)
