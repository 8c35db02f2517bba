"""Adapters with heads of their own in a real engine, against transformers + PEFT one by one."""

from pathlib import Path

import pytest
import torch

from adapters import AdapterStore, AdapterVersion
from propulsion.errors import BaseMismatchError, HeadNotServedError
from tests.serving import tiny, tiny_heads

pytestmark = pytest.mark.slow

HEADS = {
    "two": {"num_labels": 2},
    "three": {"num_labels": 3},
    "several": {"num_labels": 4, "problem_type": "multi_label_classification"},
    "rating": {"num_labels": 1, "problem_type": "regression"},
}
# Fewer than adapters, so that heads leave their slots and come back.
MAX_ADAPTERS = 3


def activated(logits: torch.Tensor, name: str | None) -> torch.Tensor:
    problem = HEADS.get(name or "", {}).get("problem_type")
    if problem == "regression":
        return logits
    return logits.sigmoid() if problem else logits.softmax(-1)


def engine(base: Path, **options):
    from vllm import LLM

    from serving.engine import engine_options

    return LLM(
        **engine_options(
            base,
            max_adapters=MAX_ADAPTERS,
            dtype="float32",
            enforce_eager=True,
            max_model_len=128,
            **options,
        )
    )


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with a head of its own, of two labels."""
    folder = tmp_path_factory.mktemp("classifier") / "tiny-classifier"
    return tiny.make_base(folder, auto_model="AutoModelForSequenceClassification")


@pytest.fixture(scope="module")
def folders(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("heads")
    made = {
        name: tiny_heads.make_adapter(root / name, classifier, seed=seed, **head)
        for seed, (name, head) in enumerate(HEADS.items())
    }
    plain = tiny.make_adapter(
        root / "plain", classifier, degree=3, target_modules=["q_proj", "up_proj"], seed=9
    )
    # vLLM wraps the base's head where LoRA adapters are served too.
    lora = tiny.make_lora(root / "lora", classifier, ["q_proj", "down_proj"], 8, task_type=None)
    return {**made, "plain": plain, "lora": lora}


@pytest.fixture(scope="module")
def logits(classifier: Path, folders: dict[str, Path]) -> dict[str | None, list[torch.Tensor]]:
    """By adapter, None being the base, for each prompt."""
    found = {
        name: tiny_heads.reference_logits(classifier, folder, **HEADS.get(name, {}))
        for name, folder in folders.items()
    }
    return {None: tiny_heads.reference_logits(classifier, None), **found}


@pytest.fixture(scope="module")
def llm(classifier: Path):
    llm = engine(classifier, max_lora_adapters=1, max_lora_rank=8)
    yield llm
    llm.llm_engine.engine_core.shutdown()


def classify(llm, names: list[str | None], versions: dict[str, AdapterVersion], **params):
    """What each name, None being the base, answers to each of tiny.PROMPTS, in one batch."""
    from vllm import PoolingParams

    from serving.engine import adapter_request

    asked = [(prompt, name) for prompt in tiny.PROMPTS for name in names]
    outputs = llm.classify(
        [prompt for prompt, _ in asked],
        pooling_params=PoolingParams(**params),
        lora_request=[adapter_request(versions[name]) if name else None for _, name in asked],
        use_tqdm=False,
    )
    return [
        (name, torch.tensor(o.outputs.probs)) for (_, name), o in zip(asked, outputs, strict=True)
    ]


def versions_of(folders: dict[str, Path]) -> dict[str, AdapterVersion]:
    return {name: AdapterVersion(name, "v1", folder) for name, folder in folders.items()}


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("use_activation", [True, False])
def test_a_batch_of_base_and_heads_answers_like_each_alone(
    llm, folders, logits, use_activation, turn
):
    assert len(folders) > MAX_ADAPTERS
    names = [None, *folders][::turn]
    found = classify(llm, names, versions_of(folders), use_activation=use_activation)
    assert len(found) == len(names) * len(tiny.PROMPTS)
    for index, (name, values) in enumerate(found):
        wanted = logits[name][index // len(names)]
        wanted = activated(wanted, name) if use_activation else wanted
        torch.testing.assert_close(values, wanted, rtol=1e-3, atol=1e-4)


def test_a_new_version_brings_its_own_head(llm, classifier, folders, logits, tmp_path):
    store = AdapterStore(tmp_path / "store")
    for name in ("three", "two", "rating"):
        found = classify(llm, ["x", None], {"x": store.publish(folders[name], "evolving")})
        for index, (asked, values) in enumerate(found):
            told = name if asked else None
            wanted = activated(logits[told][index // 2], told)
            torch.testing.assert_close(values, wanted, rtol=1e-3, atol=1e-4)


def test_a_head_that_does_not_fit_is_refused_and_the_engine_lives_on(
    llm, folders, logits, tmp_path
):
    from serving.engine import load_adapter

    for shape, error in (((2, 65), BaseMismatchError), ((17, 64), HeadNotServedError)):
        name = f"{shape[0]}-{shape[1]}"
        folder = tiny_heads.with_head(tmp_path / name, folders["two"], torch.ones(shape))
        with pytest.raises(error):
            load_adapter(llm, AdapterVersion(name, "v1", folder))
    for index, (name, values) in enumerate(classify(llm, ["two"], versions_of(folders))):
        torch.testing.assert_close(
            values, activated(logits[name][index], name), rtol=1e-3, atol=1e-4
        )


def test_each_token_is_classified_by_the_head_of_its_request(classifier, tmp_path):
    from vllm import PoolingParams
    from vllm.config import PoolerConfig

    from serving.engine import adapter_request

    head = {"num_labels": 3}
    folder = tiny_heads.make_adapter(
        tmp_path / "tags", classifier, seed=5, task=tiny_heads.TOKENS, **head
    )
    wanted = tiny_heads.reference_logits(classifier, folder, tiny_heads.TOKENS, **head)
    request = adapter_request(AdapterVersion("tags", "v1", folder))
    llm = engine(classifier, pooler_config=PoolerConfig(task="token_classify"))
    try:
        outputs = llm.encode(
            [prompt for prompt in tiny.PROMPTS for _ in range(2)],
            PoolingParams(use_activation=False),
            lora_request=[request, None] * len(tiny.PROMPTS),
            pooling_task="token_classify",
            use_tqdm=False,
        )
    finally:
        llm.llm_engine.engine_core.shutdown()
    for own, of_base, logits in zip(outputs[::2], outputs[1::2], wanted, strict=True):
        torch.testing.assert_close(own.outputs.data, logits, rtol=1e-3, atol=1e-4)
        assert of_base.outputs.data.shape == (len(logits), 2)


def test_an_encoders_head_is_another_for_each_adapter(tmp_path):
    base = tiny.make_base(
        tmp_path / "bert", "bert", auto_model="AutoModelForSequenceClassification"
    )
    modules, head = ["intermediate.dense", "output.dense"], {"num_labels": 3}
    folder = tiny_heads.make_adapter(
        tmp_path / "own", base, seed=2, degree=3, target_modules=modules, **head
    )
    wanted = {
        "own": tiny_heads.reference_logits(base, folder, **head),
        None: tiny_heads.reference_logits(base, None),
    }
    llm = engine(base)
    try:
        found = classify(llm, ["own", None], versions_of({"own": folder}), use_activation=False)
    finally:
        llm.llm_engine.engine_core.shutdown()
    for index, (name, values) in enumerate(found):
        torch.testing.assert_close(values, wanted[name][index // 2], rtol=1e-3, atol=1e-4)


def test_an_engine_that_embeds_leaves_heads_out(base, tmp_path):
    from serving.engine import adapter_request

    folder = tiny_heads.make_adapter(tmp_path / "two", base, seed=1)
    llm = engine(base, runner="pooling", convert="embed")
    try:
        requests = [adapter_request(AdapterVersion("two", "v1", folder)), None]
        outputs = llm.embed(
            [prompt for prompt in tiny.PROMPTS for _ in requests],
            lora_request=requests * len(tiny.PROMPTS),
            use_tqdm=False,
        )
    finally:
        llm.llm_engine.engine_core.shutdown()
    found = torch.tensor([output.outputs.embedding for output in outputs])
    for embeddings, adapter in ((found[::2], folder), (found[1::2], None)):
        wanted = torch.stack(tiny_heads.reference_vectors(base, adapter))
        wanted = torch.nn.functional.normalize(wanted, dim=-1)
        torch.testing.assert_close(embeddings, wanted, rtol=1e-3, atol=1e-4)
