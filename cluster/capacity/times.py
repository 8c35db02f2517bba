"""What a replica was measured to take: the file that plans and simulations read."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError

from propulsion.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StepTimes(_Section):
    """Seconds of one engine step, a sum of parts."""

    fixed_seconds: NonNegativeFloat = Field(description="Of any step.")
    per_sequence_seconds: NonNegativeFloat = Field(
        description="Of each sequence that the step gives one more token."
    )
    per_prefill_token_seconds: NonNegativeFloat = Field(description="Of each prompt token read.")
    per_admission_seconds: NonNegativeFloat = Field(
        description="Of each request that joins the batch, its way through the server included."
    )

    def seconds(self, num_sequences: int, prefill_tokens: int, admissions: int) -> float:
        """Seconds of a step that decodes so many sequences and admits so many requests."""
        return (
            self.fixed_seconds
            + self.per_sequence_seconds * num_sequences
            + self.per_prefill_token_seconds * prefill_tokens
            + self.per_admission_seconds * admissions
        )


class AdapterTimes(_Section):
    """Seconds and bytes of an adapter."""

    load_seconds: NonNegativeFloat = Field(
        description="From the store to host memory: how much later the first token comes."
    )
    load_blocking_seconds: NonNegativeFloat = Field(
        description="The part of a load during which the engine does nothing else."
    )
    slot_write_seconds: NonNegativeFloat = Field(description="From host memory to a bank slot.")
    row_bytes: PositiveInt = Field(description="Of an adapter, in host memory and in a slot alike.")


class EngineLimits(_Section):
    """What bounds the batches of the measured engine."""

    max_num_seqs: PositiveInt = Field(description="Most sequences of a batch.")
    max_num_batched_tokens: PositiveInt = Field(description="Most tokens of a step.")
    kv_cache_tokens: PositiveInt = Field(description="Tokens that the key-value cache holds.")
    batch_adapters: PositiveInt = Field(description="Most distinct adapters of a batch.")
    slots: PositiveInt = Field(description="Bank slots in all, at least as many.")
    host_adapters: PositiveInt = Field(description="Adapters kept in host memory.")


class Conditions(_Section):
    """On what, and within which range, it was measured."""

    device: str = Field(description="Name of the GPU, or of the processor.")
    gpus_per_replica: int = Field(ge=0, description="GPUs of a replica; 0 on a CPU.")
    base: str = Field(description="The frozen base model.")
    replicas_at_once: PositiveInt = Field(
        description="Replicas that shared the machine while it was measured, all under the load."
    )
    concurrency: tuple[int, ...] = Field(description="Numbers of requests at once.")
    prompt_tokens: tuple[int, ...] = Field(description="Prompt lengths.")
    output_tokens: tuple[int, ...] = Field(description="Answer lengths.")
    repeats: PositiveInt = Field(description="How often each was measured; medians are taken.")
    load_average: tuple[float, float] = Field(
        description="The machine's load average of one minute, before and after."
    )
    versions: dict[str, str] = Field(description="Of the software.")


class Fit(_Section):
    """How well the sum of parts tells what was measured; relative errors of the medians."""

    waves: PositiveInt = Field(description="Different loads that were fitted.")
    median_error: NonNegativeFloat = Field(description="Of half of them at most this.")
    worst_error: NonNegativeFloat = Field(description="Of the worst.")
    spread: NonNegativeFloat = Field(
        description="Median over the loads of (third quartile - first) / median of the repeats."
    )


class ReplicaTimes(_Section):
    """All that a replica was measured to take."""

    step: StepTimes
    adapter: AdapterTimes
    limits: EngineLimits
    request_seconds: NonNegativeFloat = Field(
        description="A request's way in and out of the server that delays it but not the others."
    )
    boot_seconds: NonNegativeFloat = Field(description="From a replica's start until it serves.")
    conditions: Conditions
    fit: Fit

    def step_seconds(self, num_sequences: int) -> float:
        """Seconds between two tokens of each of so many sequences, while none is admitted."""
        return self.step.seconds(num_sequences, 0, 0)

    def request_work_seconds(self, prompt_tokens: float, output_tokens: float) -> float:
        """Engine seconds that one request adds, the fixed part of the steps left out."""
        return (
            self.step.per_admission_seconds
            + self.step.per_prefill_token_seconds * prompt_tokens
            + self.step.per_sequence_seconds * (output_tokens - 1)
        )


def with_places(
    times: ReplicaTimes, *, slots: int | None = None, host_adapters: int | None = None
) -> ReplicaTimes:
    """The same replica with other numbers of slots and of adapters in host memory.

    Raises:
        ConfigError: host memory would hold fewer adapters than there are slots.
    """
    limits = times.limits.model_copy(
        update={
            "slots": slots or times.limits.slots,
            "batch_adapters": min(times.limits.batch_adapters, slots or times.limits.slots),
            "host_adapters": host_adapters or times.limits.host_adapters,
        }
    )
    if limits.host_adapters < limits.slots:
        raise ConfigError(
            f"host memory of {limits.host_adapters} adapters is less than {limits.slots} slots: "
            "raise --host-adapters, or lower --slots"
        )
    return times.model_copy(update={"limits": limits})


def read_times(path: Path) -> ReplicaTimes:
    """The measured times in a file.

    Raises:
        ConfigError: there is no such file, or it is not one that `cluster measure` writes.
    """
    hint = "write one with `propulsion cluster measure` on the machine that is to serve"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the measured times cannot be read ({error}); {hint}") from error
    try:
        return ReplicaTimes.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "all"
        raise ConfigError(
            f"{path}: not a file of measured times: {where}: {problem['msg']}; {hint}"
        ) from error
