"""Answers from a real server, and what is said when there are none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import AdapterStore
from propulsion.errors import ConfigError, PropulsionError
from tests.serving.live_server import LiveServer, free_port
from trainer.config.task import AnswerTask
from trainer.data.records import Example
from trainer.tasks.build import make_task
from trainer.tasks.generation import GeneratingTask
from trainer.tasks.server import complete

BASE = Path(__file__).parents[3] / "examples" / "tiny_base" / "model"
KEY = "correct-horse"
RECORDS = [
    Example(f"{text}\nThis is", "good", "good")
    for text in ("a good film", "the story is dull and far too long " * 8, "why", "it was")
]


def test_a_server_that_is_not_there_is_told() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match=rf"{url}/?: the server cannot be reached .* is running"):
        complete(url, "base", ["one", "two"], 3)


@pytest.mark.parametrize("url", ["http://[one", "localhost:8000", ""])
def test_what_is_no_url_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match="URL"):
        complete(url, "base", ["one"], 3)


def test_nothing_is_asked_without_prompts() -> None:
    assert complete("http://127.0.0.1:1", "base", [], 3) == []


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from propulsion import PropulsionConfig

    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    config = PropulsionConfig(preset="all", degree=3, base_model_name_or_path=str(BASE))
    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "propulsion_delta" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    store = AdapterStore(tmp_path_factory.mktemp("store"))
    store.publish(adapter, "reviews")
    with pytest.MonkeyPatch.context() as environment:
        # Two cores and little memory are shared with other tests.
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        environment.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        log = tmp_path_factory.mktemp("server") / "log"
        server = LiveServer(BASE, store.path, log, key=KEY)
    yield server
    server.stop()


def reference(task: GeneratingTask, adapter: Path | None) -> list[str]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    import propulsion  # noqa: F401  registers the method with PEFT

    model: Any = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.inference_mode():
        return task.predict(model.eval(), RECORDS, batch_size=2)


@pytest.mark.slow
def test_a_server_answers_as_the_model_itself_does(server: LiveServer, adapter: Path) -> None:
    from transformers import AutoTokenizer

    task = make_task(AnswerTask(max_new_tokens=8), AutoTokenizer.from_pretrained(BASE), 48)
    assert isinstance(task, GeneratingTask)
    prompts = task.prompts(RECORDS)
    assert max(map(len, prompts)) == 40, "no prompt was shortened"
    answers = complete(
        f"{server.url}/v1", "reviews@latest", prompts, task.max_new_tokens, api_key=KEY
    )
    expected = reference(task, adapter)
    assert expected != reference(task, None)
    assert [answer.strip() for answer in answers] == [answer.strip() for answer in expected]
    assert task.score(answers, RECORDS) == task.score(expected, RECORDS)


@pytest.mark.slow
def test_a_text_is_taken_too_and_order_is_kept(server: LiveServer) -> None:
    prompts = [record.prompt for record in RECORDS]
    one_by_one = [
        complete(server.url, "reviews", [prompt], 4, api_key=KEY, concurrency=1)[0]
        for prompt in prompts
    ]
    assert complete(server.url, "reviews", prompts, 4, api_key=KEY) == one_by_one


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "key", "prompt", "error", "message"),
    [
        ("reviews", "wrong", "hi", ConfigError, "refused the API key"),
        ("reviews", None, "hi", ConfigError, "refused the API key"),
        ("nobody", KEY, "hi", ConfigError, "has no model 'nobody'"),
        ("reviews", KEY, "word " * 400, PropulsionError, "answered 400 for 'reviews'"),
    ],
)
def test_what_a_server_refuses_is_told(
    server: LiveServer, model: str, key: str | None, prompt: str, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        complete(server.url, model, [prompt] * 3, 4, api_key=key)
