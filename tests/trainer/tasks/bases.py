"""Tiny random models with their tokenizers, and for each kind of task some records."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, LlamaConfig, PreTrainedTokenizerFast, T5Config

from trainer.config.task import (
    AnswerTask,
    CausalLMTask,
    ClassificationTask,
    QuestionAnsweringTask,
    RegressionTask,
    SummarizationTask,
    TokenClassificationTask,
)
from trainer.data.records import (
    AnswerSpan,
    Example,
    LabeledText,
    Question,
    Record,
    TaggedSentence,
)
from trainer.tasks.build import make_task
from trainer.tasks.task import Task

LETTERS = "abcdefghijklmnopqrstuvwxyz.?"
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]


@cache
def bert_tokenizer() -> Any:
    """Letters as word pieces: a word has as many tokens as letters."""
    pieces = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def byte_tokenizer(single: str, *, prefix_space: bool = False) -> Any:
    """Bytes as tokens; `single` is the template of a text, such as "<s> $A"."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index + 3 for index, symbol in enumerate(alphabet)}
    vocabulary |= {"<pad>": 0, "<s>": 1, "</s>": 2}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} $B", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@cache
def llama_tokenizer() -> Any:
    return byte_tokenizer("<s> $A")


@cache
def t5_tokenizer() -> Any:
    """Loaded from a folder, which also holds the configuration of a base."""
    folder = Path(mkdtemp(prefix="tiny-t5-"))
    byte_tokenizer("$A </s>").save_pretrained(folder)
    t5_config().save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def bert_config(**changes: Any) -> BertConfig:
    settings: dict[str, Any] = {
        "vocab_size": len(bert_tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
    }
    return BertConfig(**settings | changes)


def llama_config(**changes: Any) -> LlamaConfig:
    settings: dict[str, Any] = {
        "vocab_size": 259,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return LlamaConfig(**settings | changes)


def t5_config(**changes: Any) -> T5Config:
    settings: dict[str, Any] = {
        "vocab_size": 259,
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 2,
        "dropout_rate": 0.0,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 0,
    }
    return T5Config(**settings | changes)


@dataclass
class Case:
    """A task with a model of its kind and records."""

    task: Task
    model: Any
    records: list[Record]

    def predict(self, records: list[Record], batch_size: int, **options: Any) -> list[Any]:
        """As an evaluation calls it."""
        with torch.inference_mode():
            return self.task.predict(self.model.eval(), records, batch_size=batch_size, **options)


TEXTS = [
    Example("what is it? ", "a cat", "a cat"),
    Example("who goes there, so late at night? ", "me", "me"),
    Example("why? ", "because it is there", "because it is there"),
    Example("is the sky blue? ", "yes", "yes"),
    Example("and the sea? ", "yes", "yes"),
]
PAIRS = [
    LabeledText("a good film", "it was fine", 1),
    LabeledText("dull", "a very long and boring story", 0),
    LabeledText("the end", None, 2),
    LabeledText("an odd film", "odd", 1),
    LabeledText("no", "yes", 0),
]
SIMILAR = [
    LabeledText(p.text, p.text_pair, label)
    for p, label in zip(PAIRS, (4.2, 0.5, 3.0, 1.25, 2.0), strict=True)
]
CONTEXT = "the old mill by the river was built by a monk in the year of the great flood."
QUESTIONS = [
    Question("who", "who built it?", CONTEXT, (AnswerSpan("a monk", CONTEXT.index("a monk")),)),
    Question("what", "what was built?", CONTEXT, (AnswerSpan("the old mill", 0),)),
    Question("where", "where?", CONTEXT, (AnswerSpan("river", CONTEXT.index("river")),)),
    Question("why", "why was it built?", CONTEXT, ()),
    Question("short", "what?", "a cat.", (AnswerSpan("cat", 2),)),
]
SENTENCES = [
    TaggedSentence(("ada", "went", "to", "new", "york"), ("B-PER", "O", "O", "B-LOC", "I-LOC")),
    TaggedSentence(("rain",), ("O",)),
    TaggedSentence(("bob", "stayed", "in", "rome"), ("B-PER", "O", "O", "B-LOC")),
]
TAGS = ("O", "B-LOC", "B-PER", "I-LOC")
CLASSES = ("bad", "good", "neither")


def _head(auto_model: str, config: Any, task: Task) -> Any:
    options = task.model_options()
    if "num_labels" in options:
        options = {k: v for k, v in options.items() if k not in ("id2label", "label2id")}
    for name, value in options.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    return getattr(transformers, auto_model).from_config(config).eval()


def make_case(name: str) -> Case:
    """The case of one of `CASES`."""
    settings, tokenizer, config, records, labels, max_length = {
        "answer": (AnswerTask(max_new_tokens=6), llama_tokenizer, llama_config, TEXTS, (), 64),
        "causal_lm": (
            CausalLMTask(type="causal_lm"),
            llama_tokenizer,
            llama_config,
            TEXTS,
            (),
            16,
        ),
        "classification-bert": (
            ClassificationTask(type="classification"),
            bert_tokenizer,
            bert_config,
            PAIRS,
            CLASSES,
            64,
        ),
        "classification-llama": (
            ClassificationTask(type="classification"),
            llama_tokenizer,
            llama_config,
            PAIRS,
            CLASSES,
            64,
        ),
        "regression": (
            RegressionTask(type="regression"),
            bert_tokenizer,
            bert_config,
            SIMILAR,
            (),
            64,
        ),
        "question_answering": (
            QuestionAnsweringTask(
                type="question_answering",
                doc_stride=20,
                max_query_length=16,
                max_answer_length=12,
                no_answer=True,
            ),
            bert_tokenizer,
            bert_config,
            QUESTIONS,
            (),
            52,
        ),
        "summarization-llama": (
            SummarizationTask(type="summarization", max_new_tokens=6),
            llama_tokenizer,
            llama_config,
            TEXTS,
            (),
            64,
        ),
        "summarization-t5": (
            SummarizationTask(type="summarization", model="seq2seq", max_new_tokens=6),
            t5_tokenizer,
            t5_config,
            TEXTS,
            (),
            64,
        ),
        "token_classification": (
            TokenClassificationTask(type="token_classification"),
            bert_tokenizer,
            bert_config,
            SENTENCES,
            TAGS,
            64,
        ),
    }[name]
    task = make_task(settings, tokenizer(), max_length, labels)
    return Case(task, _head(task.auto_model, config(), task), records)


CASES = [
    "answer",
    "causal_lm",
    "classification-bert",
    "classification-llama",
    "regression",
    "question_answering",
    "summarization-llama",
    "summarization-t5",
    "token_classification",
]
