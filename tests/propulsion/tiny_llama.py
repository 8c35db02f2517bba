"""A LLaMA small enough for a unit test, with random weights."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB_SIZE = 99


def tiny_llama(seed: int = 0, bias: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            attention_bias=bias,
            tie_word_embeddings=False,
        )
    )
    if bias:
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
    return model.eval()


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB_SIZE, (2, 7), generator=torch.Generator().manual_seed(seed))
