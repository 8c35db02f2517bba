"""The plug-in in a real engine, against transformers + PEFT."""

import shutil
from pathlib import Path

import pytest
import torch

from adapters import AdapterStore, AdapterVersion
from propulsion.errors import AdapterCorruptError, BaseMismatchError, ConfigError
from tests.serving import tiny

pytestmark = pytest.mark.slow

MAX_ADAPTERS = 4
BLOCK_SIZE = 32


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, adapter_folders) -> AdapterStore:
    store = AdapterStore(tmp_path_factory.mktemp("store"))
    for name, folder in adapter_folders.items():
        store.publish(folder, name)
    return store


@pytest.fixture(scope="module")
def llm(base: Path):
    from vllm import LLM

    from serving.engine import engine_options

    # Fewer slots than adapters, and fewer host rows: every test evicts and reloads.
    options = engine_options(
        base,
        max_adapters=MAX_ADAPTERS,
        max_cpu_adapters=MAX_ADAPTERS + 1,
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        block_size=BLOCK_SIZE,
    )
    llm = LLM(**options)
    yield llm
    llm.llm_engine.engine_core.shutdown()


def generate(llm, requests: list[tuple[str, AdapterVersion | None]], max_tokens: int):
    from vllm import SamplingParams

    from serving.engine import adapter_request

    return llm.generate(
        [prompt for prompt, _ in requests],
        SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True),
        lora_request=[adapter_request(version) if version else None for _, version in requests],
        use_tqdm=False,
    )


def tokens(outputs) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in outputs]


def mixed(store: AdapterStore, expected: dict) -> tuple[list, list]:
    """Every prompt for the base and every adapter, interleaved, and what each must answer."""
    versions = {name: store.resolve(name) if name else None for name in expected}
    requests = [(prompt, version) for prompt in tiny.PROMPTS for version in versions.values()]
    answers = [expected[name][i] for i in range(len(tiny.PROMPTS)) for name in versions]
    return requests, answers


def test_a_batch_of_base_and_adapters_answers_like_each_adapter_alone(llm, store, expected):
    assert len(expected) - 1 > MAX_ADAPTERS + 1
    requests, answers = mixed(store, expected)
    assert tokens(generate(llm, requests, tiny.MAX_TOKENS)) == answers


def test_adapters_answer_right_after_eviction_and_reload(llm, store, expected):
    requests, answers = mixed(store, expected)
    assert tokens(generate(llm, requests[::-1], tiny.MAX_TOKENS)) == answers[::-1]
    assert tokens(generate(llm, requests, tiny.MAX_TOKENS)) == answers


def test_a_new_version_of_a_name_never_sees_the_old_ones_cached_blocks(
    llm, base, adapter_folders, tmp_path
):
    store = AdapterStore(tmp_path / "store")
    prompt = "once upon a time there was a prompt that filled more than one block of the cache"
    answers = {}
    for name in ("all-15", "attn-1"):
        version = store.publish(adapter_folders[name], "evolving")
        first = generate(llm, [(prompt, version)], tiny.MAX_TOKENS)[0]
        again = generate(llm, [(prompt, version)], tiny.MAX_TOKENS)[0]
        assert first.num_cached_tokens == 0
        assert again.num_cached_tokens >= BLOCK_SIZE, "no prefix was cached: this tests nothing"
        wanted = tiny.reference_tokens(base, adapter_folders[name], [prompt], tiny.MAX_TOKENS)
        assert tokens([first]) == tokens([again]) == wanted
        answers[name] = wanted
    assert answers["all-15"] != answers["attn-1"]


BAD = {
    "wrong-width": (
        BaseMismatchError,
        "64 wide",
        {"model.layers.0.self_attn.q_proj": torch.zeros(1, 7)},
    ),
    "unknown-module": (
        BaseMismatchError,
        "layers.9.mlp.up_proj",
        {"model.layers.9.mlp.up_proj": torch.zeros(1, 96)},
    ),
    "not-finite": (
        AdapterCorruptError,
        "not finite",
        {"model.layers.0.self_attn.q_proj": torch.full((1, 64), float("nan"))},
    ),
    "truncated": (AdapterCorruptError, "adapter_model.safetensors", None),
}

KINDS = {
    "pooled": (
        {"num_vectors": 2, "pooling": "max", "feedforward_modules": ["down_proj"]},
        "two scales per input",
    ),
    "input": ({"feedforward_modules": ["o_proj"]}, "scales the input of"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_a_kind_that_is_not_served_is_refused(llm, base, tmp_path, kind):
    from serving.engine import load_adapter

    settings, message = KINDS[kind]
    targets = ["q_proj", *settings["feedforward_modules"]]
    folder = tiny.make_adapter(
        tmp_path / "other" / "v1", base, degree=1, target_modules=targets, seed=0, **settings
    )
    with pytest.raises((ConfigError, BaseMismatchError), match=message):
        load_adapter(llm, AdapterVersion("other", "v1", folder))


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_adapter_fails_its_own_load_and_the_engine_lives_on(
    llm, base, store, expected, tmp_path, kind
):
    from serving.engine import load_adapter

    error, message, weights = BAD[kind]
    folder = tiny.make_adapter(
        tmp_path / "bad" / "v1", base, degree=1, target_modules=["q_proj"], seed=0
    )
    if weights is None:
        file = folder / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:-40])
    else:
        tiny.overwrite_weights(folder, weights)
    with pytest.raises(error, match=message):
        load_adapter(llm, AdapterVersion("bad", "v1", folder))
    requests, answers = mixed(store, expected)
    assert tokens(generate(llm, requests[:4], tiny.MAX_TOKENS)) == answers[:4]


def test_a_loaded_adapter_stays_when_the_base_gets_other_weights(
    llm, base, adapter_folders, tmp_path
):
    from serving.engine import load_adapter

    other = tiny.make_base(tmp_path / "other", seed=1)
    folder = shutil.copytree(adapter_folders["all-15"], tmp_path / "copy" / "v1")
    version = AdapterVersion("copy", "v1", folder)
    load_adapter(llm, version)
    requests = [(prompt, version) for prompt in tiny.PROMPTS]
    wanted = {
        path: tiny.reference_tokens(path, folder, tiny.PROMPTS, tiny.MAX_TOKENS)
        for path in (other, base)
    }
    # What is on the host needs no file.
    shutil.rmtree(folder)
    for path, answers in wanted.items():
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(path)})
        llm.reset_prefix_cache()
        assert tokens(generate(llm, requests, tiny.MAX_TOKENS)) == answers
