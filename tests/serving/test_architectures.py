"""One batch of everything, on each architecture: as transformers + PEFT answer one by one."""

import shutil
from pathlib import Path

import pytest

from adapters import AdapterVersion
from tests.serving import tiny

pytestmark = pytest.mark.slow

# By architecture: attention, MLP and its input, norms, embedding, what LoRA adapts.
NAMES = {
    "llama": (["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj", "down_proj"], "down_proj"),
    "qwen2": (["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj", "down_proj"], "down_proj"),
    "gptj": (["q_proj", "k_proj", "v_proj"], ["fc_in", "fc_out"], "fc_out"),
    "bloom": (["query_key_value"], ["dense_h_to_4h", "dense_4h_to_h"], "dense_4h_to_h"),
}
NORMS = {
    "llama": ["input_layernorm", "post_attention_layernorm", "norm"],
    "qwen2": ["input_layernorm", "post_attention_layernorm", "norm"],
    "gptj": ["ln_1", "ln_f"],
    "bloom": ["input_layernorm", "word_embeddings_layernorm", "ln_f"],
}
EMBEDDINGS = {
    "llama": "embed_tokens",
    "qwen2": "embed_tokens",
    "gptj": "wte",
    "bloom": "word_embeddings",
}
# Kinds of modules that scale what a layer gives them, per decoder layer.
FUSED = {
    "llama": ["Activation", "AddNorm", "AddNorm", "Rotary"],
    "qwen2": ["Activation", "AddNorm", "AddNorm", "Rotary"],
    "gptj": ["Activation", "Rotary"],
    "bloom": ["Activation"],
}


def specifications(architecture: str) -> dict[str, dict]:
    attention, mlp, _ = NAMES[architecture]
    linear = [*attention, *mlp]
    return {
        "attention": {"degree": 1, "target_modules": attention},
        "mlp": {"degree": 15, "target_modules": mlp},
        "mean": {"degree": 3, "target_modules": linear, "num_vectors": 2, "pooling": "mean"},
        "max": {"degree": 2, "target_modules": linear, "num_vectors": 3, "pooling": "max"},
        "min": {"degree": 1, "target_modules": linear, "num_vectors": 2, "pooling": "min"},
        "l2": {"degree": 2, "target_modules": linear, "num_vectors": 2, "pooling": "l2"},
        "norms": {"degree": 1, "target_modules": NORMS[architecture]},
        "embedding": {"degree": 3, "target_modules": [EMBEDDINGS[architecture], *attention]},
    }


@pytest.fixture(scope="module", params=NAMES)
def architecture(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def architecture_base(architecture: str, tmp_path_factory) -> Path:
    return tiny.make_base(tmp_path_factory.mktemp(architecture) / "base", architecture)


def make_adapters(
    architecture: str, base: Path, root: Path
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Adapters of every kind, also (IA)³ and LoRA: folders as served and as PEFT loads them."""
    from propulsion.interchange import import_ia3

    served = {
        name: tiny.make_adapter(root / name, base, seed=seed, **settings)
        for seed, (name, settings) in enumerate(specifications(architecture).items())
    }
    attention, _, feedforward = NAMES[architecture]
    ia3 = tiny.make_ia3(root / "ia3", base, attention[-1:], [feedforward], seed=50)
    original = dict(served, ia3=ia3)
    import_ia3(ia3, root / "imported")
    served["ia3"] = root / "imported"
    if architecture in ("llama", "qwen2"):
        lora = tiny.make_lora(root / "lora", base, ["q_proj", "down_proj"], seed=60)
    else:
        lora = tiny.make_lora(root / "lora", base, [feedforward], seed=60)
    served["lora"] = original["lora"] = lora
    return served, original


@pytest.fixture(scope="module")
def folders(architecture: str, architecture_base: Path, tmp_path_factory):
    return make_adapters(architecture, architecture_base, tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def answers(architecture_base: Path, folders) -> dict[str | None, list[list[int]]]:
    _, original = folders
    found = {
        name: tiny.reference_tokens(architecture_base, folder, tiny.PROMPTS, tiny.MAX_TOKENS)
        for name, folder in {None: None, **original}.items()
    }
    distinct = {tuple(map(tuple, tokens)) for tokens in found.values()}
    assert len(distinct) == len(found), "adapters that answer alike would test nothing"
    return found


@pytest.fixture(scope="module")
def llm(architecture_base: Path):
    from vllm import LLM

    from serving.engine import engine_options

    options = engine_options(
        architecture_base,
        max_adapters=12,
        max_lora_adapters=1,
        max_lora_rank=8,
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
    )
    llm = LLM(**options)
    yield llm
    llm.llm_engine.engine_core.shutdown()


def test_layers_are_scaled_by_what_reads_them(llm, architecture):
    (state,) = llm.collective_rpc("propulsion_state")
    assert sorted(state["fused"].values()) == sorted(2 * FUSED[architecture])


def test_a_batch_of_every_kind_answers_like_each_adapter_alone(llm, folders, answers):
    from vllm import SamplingParams

    from serving.engine import adapter_request

    served, _ = folders
    names = [name for name in answers for _ in tiny.PROMPTS]
    versions = {name: AdapterVersion(name, "v1", folder) for name, folder in served.items()}
    for _ in range(2):
        outputs = llm.generate(
            tiny.PROMPTS * len(answers),
            SamplingParams(temperature=0, max_tokens=tiny.MAX_TOKENS, ignore_eos=True),
            lora_request=[adapter_request(versions[n]) if n else None for n in names],
            use_tqdm=False,
        )
        found = [list(output.outputs[0].token_ids) for output in outputs]
        wanted = [tokens for name in answers for tokens in answers[name]]
        wrong = {name for name, a, b in zip(names, found, wanted, strict=True) if a != b}
        assert not wrong


def test_a_loaded_lora_adapter_stays_when_the_base_is_reloaded(
    llm, architecture_base, folders, answers, tmp_path
):
    from vllm import SamplingParams

    from serving.engine import adapter_request, load_adapter

    folder = shutil.copytree(folders[0]["lora"], tmp_path / "copy" / "v1")
    version = AdapterVersion("copy", "v1", folder)
    load_adapter(llm, version)
    # What is on the host needs no file.
    shutil.rmtree(folder)
    llm.collective_rpc("reload_weights", kwargs={"weights_path": str(architecture_base)})
    outputs = llm.generate(
        tiny.PROMPTS,
        SamplingParams(temperature=0, max_tokens=tiny.MAX_TOKENS, ignore_eos=True),
        lora_request=adapter_request(version),
        use_tqdm=False,
    )
    assert [list(output.outputs[0].token_ids) for output in outputs] == answers["lora"]
