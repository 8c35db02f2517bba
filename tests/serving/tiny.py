"""A tiny random LLaMA with its tokenizer, random adapters for it, and the reference answers."""

from pathlib import Path

import torch
from safetensors.torch import save_file

VOCAB_SIZE = 300
MAX_TOKENS = 12
PROMPTS = [
    "the cat sat on",
    "a long story begins with one word and then",
    "numbers: 1 2 3",
    "why is",
]


def make_base(
    folder: Path,
    architecture: str = "llama",
    seed: int = 0,
    auto_model: str = "AutoModelForCausalLM",
) -> Path:
    """Save a random 2-layer model (hidden 64, 2 heads of 32) and a byte tokenizer."""
    import transformers

    torch.manual_seed(seed)
    auto = getattr(transformers, auto_model)
    auto.from_config(_config(architecture)).save_pretrained(folder)
    _byte_tokenizer().save_pretrained(folder)
    return folder


def _config(architecture: str):
    from transformers import BertConfig, BloomConfig, GPTJConfig, LlamaConfig, Qwen2Config

    # Large weights make random logits differ enough that greedy choices are never a near tie.
    shared = {
        "vocab_size": VOCAB_SIZE,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "tie_word_embeddings": False,
        "initializer_range": 0.3,
    }
    llama_like = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
    }
    if architecture == "bert":
        return BertConfig(pad_token_id=0, **llama_like, **shared)
    if architecture == "bloom":
        # As published: vLLM loads no BLOOM with a head of its own.
        return BloomConfig(
            hidden_size=64, n_layer=2, n_head=2, **{**shared, "tie_word_embeddings": True}
        )
    if architecture == "gptj":
        return GPTJConfig(
            n_embd=64, n_layer=2, n_head=2, rotary_dim=16, n_positions=256, n_inner=96, **shared
        )
    if architecture == "qwen2":
        return Qwen2Config(num_key_value_heads=2, **llama_like, **shared)
    return LlamaConfig(num_key_value_heads=1, head_dim=32, **llama_like, **shared)


def _byte_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: index for index, symbol in enumerate(alphabet)}
    vocab |= {"<s>": 256, "</s>": 257}
    vocab |= {f"<extra_{index}>": index for index in range(258, VOCAB_SIZE)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def make_adapter(
    folder: Path,
    base: Path,
    *,
    degree: int,
    target_modules: list[str],
    seed: int,
    spread: float = 0.5,
    **settings: object,
) -> Path:
    """Save a Propulsion adapter whose effective scales lie roughly within 1 ± `spread`."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from propulsion import PropulsionConfig

    config = PropulsionConfig(
        degree=degree,
        target_modules=target_modules,
        base_model_name_or_path=str(base),
        **settings,
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    randomize(model, degree, spread, seed)
    model.save_pretrained(folder)
    return folder


def randomize(model, degree: int, spread: float, seed: int) -> None:
    """Give an adapter scales within 1 ± `spread`, and its head, if it has one, random values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "propulsion_delta" in name:
                scale = 1 + spread * (2 * torch.rand(parameter.shape, generator=generator) - 1)
                parameter.copy_(scale ** (1 / degree) - 1)
            elif "modules_to_save" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def make_lora(
    folder: Path,
    base: Path,
    target_modules: list[str],
    seed: int,
    task_type: str | None = "CAUSAL_LM",
) -> Path:
    """Save a LoRA adapter of rank 4 with random weights."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=4, target_modules=target_modules, task_type=task_type)
    return _save_random(
        AutoModelForCausalLM.from_pretrained(base), config, "lora_", 0.2, folder, seed
    )


def make_ia3(
    folder: Path, base: Path, targets: list[str], feedforward: list[str], seed: int
) -> Path:
    """Save an (IA)³ adapter with random vectors."""
    from peft import IA3Config
    from transformers import AutoModelForCausalLM

    config = IA3Config(
        target_modules=[*targets, *feedforward],
        feedforward_modules=feedforward,
        task_type="CAUSAL_LM",
    )
    return _save_random(
        AutoModelForCausalLM.from_pretrained(base), config, "ia3_", 0.5, folder, seed
    )


def _save_random(base, config, marker: str, spread: float, folder: Path, seed: int) -> Path:
    from peft import get_peft_model

    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if marker in name:
                around = 1.0 if marker == "ia3_" else 0.0
                noise = 2 * torch.rand(parameter.shape, generator=generator) - 1
                parameter.copy_(around + spread * noise)
    model.save_pretrained(folder)
    return folder


def overwrite_weights(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Replace a saved adapter's deltas, given by module path."""
    keys = {f"base_model.model.{name}.propulsion_delta": t for name, t in tensors.items()}
    save_file(keys, folder / "adapter_model.safetensors")


def reference_tokens(
    base: Path, adapter: Path | None, prompts: list[str], max_tokens: int
) -> list[list[int]]:
    """Greedy tokens of transformers, with PEFT if an adapter is given, prompt by prompt in fp32."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import propulsion  # noqa: F401  (registers the PEFT type)

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).eval()
    answers = []
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=max_tokens,
                do_sample=False,
                pad_token_id=257,
                eos_token_id=None,
            )
        answers.append(output[0, inputs["input_ids"].shape[1] :].tolist())
    return answers
