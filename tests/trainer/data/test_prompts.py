from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from propulsion.errors import ConfigError
from tests.trainer.data.files import section
from tests.trainer.runs import save_tiny_base
from trainer.data.prompts import apply_chat_template, prompt_form
from trainer.data.published import ALPACA
from trainer.data.records import Example

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


def tokenizer(base: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(base)


def test_a_prompt_becomes_the_users_turn(base: Path) -> None:
    tokens = tokenizer(base)
    tokens.chat_template = TEMPLATE
    example = apply_chat_template(tokens, Example("Hello\n", "Hi", "Hi"))
    assert example == Example("[user] Hello\n[assistant] ", "Hi", "Hi")
    assert tokens(example.prompt)["input_ids"].count(tokens.bos_token_id) == 1


def test_a_start_token_stays_where_the_tokenizer_adds_none(base: Path) -> None:
    tokens = tokenizer(base)
    tokens.chat_template = TEMPLATE
    tokens.backend_tokenizer.post_processor = None
    example = apply_chat_template(tokens, Example("Hello", "Hi", "Hi"))
    assert example.prompt == "<s>[user] Hello\n[assistant] "


def test_all_turns_of_a_chat_are_written(base: Path) -> None:
    tokens = tokenizer(base)
    tokens.chat_template = TEMPLATE
    turns = (("system", "Be brief."), ("user", "Hello"))
    example = apply_chat_template(tokens, Example("unused", "Hi", "Hi", turns))
    assert example.prompt == "[system] Be brief.\n[user] Hello\n[assistant] "


def test_a_tokenizer_without_template_is_refused(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.chat_template: the tokenizer of .* has no chat"):
        apply_chat_template(tokenizer(base), Example("a", "b", "b"))


def test_the_prompt_is_the_runs_else_the_sets_else_plain() -> None:
    boolq = {"format": "published", "name": "boolq"}
    rte = {"format": "published", "name": "rte"}
    plain = {"format": "instruction"}
    path = Path("data")
    assert prompt_form(section(path, boolq, prompt="Q: {text}")) == "Q: {text}"
    assert prompt_form(section(path, boolq, prompt=None)) == ALPACA
    assert prompt_form(section(path, plain, prompt=None)) == "{text}\n"
    assert prompt_form(section(path, boolq, prompt=None, chat_template=True)) == "{text}"
    assert "{text_pair}" in prompt_form(section(path, rte, prompt=None, chat_template=True))
