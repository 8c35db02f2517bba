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


def make_base(folder: Path, seed: int = 0) -> Path:
    """Save a 2-layer LLaMA (hidden 64, 2 heads of 32, 1 key/value head) and a byte tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        bos_token_id=256,
        eos_token_id=257,
        tie_word_embeddings=False,
        # Large weights make random logits differ enough that greedy choices are never a near tie.
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    _byte_tokenizer().save_pretrained(folder)
    return folder


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
    from transformers import LlamaForCausalLM

    from propulsion import PropulsionConfig

    config = PropulsionConfig(
        degree=degree,
        target_modules=target_modules,
        base_model_name_or_path=str(base),
        **settings,
    )
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "propulsion_delta" in name:
                scale = 1 + spread * (2 * torch.rand(parameter.shape, generator=generator) - 1)
                parameter.copy_(scale ** (1 / degree) - 1)
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
    from transformers import AutoTokenizer, LlamaForCausalLM

    import propulsion  # noqa: F401  (registers the PEFT type)

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
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
