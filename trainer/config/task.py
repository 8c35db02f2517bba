"""The section `task`: what a model learns from a record and how it is judged."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from trainer.config.section import Section


class AnswerTask(Section):
    """A causal LM generates an answer, which is compared with the record's."""

    type: Literal["answer"] = Field("answer", description="Chooses this task.")
    answer: Literal["text", "choice", "number"] = Field(
        "text",
        description=(
            "`text`: all of it; `choice`: the first word that some test answer consists of; "
            "`number`: the last number."
        ),
    )
    max_new_tokens: int = Field(8, ge=1, description="Greedy tokens per answer.")


class CausalLMTask(Section):
    """A causal LM learns the target, and is judged by how likely it finds it."""

    type: Literal["causal_lm"] = Field(description="Chooses this task.")


class ClassificationTask(Section):
    """A head on the model chooses one of several classes for a text or a pair of texts."""

    type: Literal["classification"] = Field(description="Chooses this task.")
    metric: Literal["accuracy", "f1", "matthews_corrcoef"] = Field(
        "accuracy",
        description=(
            "Score that tells the better adapter. `f1` is that of the second class if there are "
            "two, else the mean over the classes; CoLA is judged by `matthews_corrcoef`."
        ),
    )


class RegressionTask(Section):
    """A head on the model gives a number for a text or a pair of texts, as in STS-B."""

    type: Literal["regression"] = Field(description="Chooses this task.")
    metric: Literal["pearson", "spearman"] = Field(
        "pearson", description="Correlation that tells the better adapter."
    )


class QuestionAnsweringTask(Section):
    """A head on the model marks the answer to a question in a context, as in SQuAD."""

    type: Literal["question_answering"] = Field(description="Chooses this task.")
    metric: Literal["f1", "exact"] = Field("f1", description="Score that tells the better adapter.")
    doc_stride: int = Field(
        128,
        ge=0,
        description="Tokens that neighbouring windows of a long context have in common.",
    )
    max_query_length: int = Field(64, ge=1, description="Tokens of a question that are kept.")
    max_answer_length: int = Field(30, ge=1, description="Most tokens of an answer.")
    n_best: int = Field(20, ge=1, description="Starts and ends per window that are combined.")
    no_answer: bool = Field(
        False, description="Whether a question may have no answer, as in SQuAD 2.0."
    )
    null_threshold: float = Field(
        0.0,
        description=(
            "With no_answer: give none where its score exceeds the best answer's by more than this."
        ),
    )


class SummarizationTask(Section):
    """A causal LM or an encoder-decoder writes a summary, which is judged by ROUGE."""

    type: Literal["summarization"] = Field(description="Chooses this task.")
    metric: Literal["rouge1", "rouge2", "rougeLsum"] = Field(
        "rougeLsum", description="Score that tells the better adapter."
    )
    model: Literal["causal", "seq2seq"] = Field(
        "causal", description="What the base is; `seq2seq` is an encoder-decoder as BART and T5."
    )
    max_new_tokens: int = Field(128, ge=1, description="Tokens of a generated summary.")
    num_beams: int = Field(1, ge=1, description="Beams of the search; 1 is greedy.")
    max_target_length: int = Field(
        128, ge=2, description="With seq2seq: tokens of a target; a longer one loses its end."
    )


class TokenClassificationTask(Section):
    """A head on the model tags each word of a sentence, as in named-entity recognition."""

    type: Literal["token_classification"] = Field(description="Chooses this task.")
    metric: Literal["f1", "accuracy"] = Field(
        "f1", description="Score that tells the better adapter; f1 is that of whole entities."
    )


def _answer_if_not_said(section: Any) -> Any:
    if isinstance(section, dict) and "type" not in section:
        return {"type": "answer", **section}
    return section


TaskSection = Annotated[
    AnswerTask
    | CausalLMTask
    | ClassificationTask
    | RegressionTask
    | QuestionAnsweringTask
    | SummarizationTask
    | TokenClassificationTask,
    Field(discriminator="type"),
    BeforeValidator(_answer_if_not_said),
]
"""Chosen by `type`; `answer` if it is not given."""
