"""The dashboard of training runs: loss, scores, speed."""

from __future__ import annotations

from cluster.monitoring.panels.model import Dashboard, Panel, Query, Row, Variable

_ON = 'run=~"$run"'
_RATE = "[$__rate_interval]"
_NAME = "{{run}} {{adapter}}"

_NOW = Row(
    "Now",
    (
        Panel(
            "Runs",
            "Trainers that answer.",
            (Query(f"count(propulsion_train_step_seconds_count{{{_ON}}})"),),
            "none",
            "stat",
            4,
        ),
        Panel(
            "Adapters that learn",
            "That took a step in the last minutes.",
            (Query(f"count(rate(propulsion_train_steps_total{{{_ON}}}{_RATE}) > 0)"),),
            "none",
            "stat",
            4,
        ),
        Panel(
            "Tokens a second",
            "Of all runs.",
            (Query(f"sum(rate(propulsion_train_tokens_total{{{_ON}}}{_RATE}))"),),
            "short",
            "stat",
            4,
        ),
        Panel(
            "Oldest last step",
            "Time since the run that has stood longest took a step.",
            (
                Query(
                    f"max(time() - propulsion:train_last_step_timestamp_seconds:last{{{_ON}}})",
                ),
            ),
            "s",
            "stat",
            4,
        ),
        Panel(
            "Trainers down",
            "Runs that neither answer nor have come to their end.",
            (Query('count(up{role="trainer"} == 0) or vector(0)'),),
            "none",
            "stat",
            4,
        ),
        Panel(
            "Firing alerts",
            "Of the component training.",
            (Query('count(ALERTS{alertstate="firing", component="training"}) or vector(0)'),),
            "none",
            "stat",
            4,
        ),
    ),
)

_LEARNING = Row(
    "Learning",
    (
        Panel(
            "Loss",
            "Of each step, mean per target. It ends where it is no longer a number.",
            (Query(f"propulsion_train_loss{{{_ON}}}", _NAME),),
            "none",
            width=12,
        ),
        Panel(
            "Loss, mean of 5 minutes",
            "An alert fires when it is one and a half times its lowest value.",
            (Query(f"propulsion:train_loss:mean{{{_ON}}}", _NAME),),
            "none",
            width=12,
        ),
        Panel(
            "Learning rate",
            "Of AdamW, after warm-up and decay.",
            (Query(f"propulsion_train_learning_rate{{{_ON}}}", _NAME),),
            "none",
        ),
        Panel(
            "Score on the test records",
            "At the last evaluation; at first that of the bare base.",
            (Query(f"propulsion_train_score_ratio{{{_ON}}}", _NAME + " {{metric}}"),),
            "percentunit",
        ),
        Panel(
            "Steps",
            "Of each adapter, in this process.",
            (Query(f"propulsion_train_steps_total{{{_ON}}}", _NAME),),
            "none",
        ),
    ),
)

_SPEED = Row(
    "Speed",
    (
        Panel(
            "Time of a step",
            "Mean seconds of a step of all adapters of a run.",
            (
                Query(
                    f"rate(propulsion_train_step_seconds_sum{{{_ON}}}{_RATE}) "
                    f"/ rate(propulsion_train_step_seconds_count{{{_ON}}}{_RATE})",
                    "{{run}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Tokens a second within steps",
            "Of the last step, without evaluations and checkpoints.",
            (Query(f"propulsion_train_tokens_per_second{{{_ON}}}", "{{run}}"),),
        ),
        Panel(
            "Tokens a second over all",
            "Mean of 5 minutes, with evaluations and checkpoints.",
            (Query(f"propulsion:train_tokens:rate{{{_ON}}}", "{{run}}"),),
        ),
        Panel(
            "Arithmetic in use (MFU)",
            "Share of the GPUs' arithmetic that the model's needs.",
            (Query(f"propulsion_train_flops_utilisation_ratio{{{_ON}}}", "{{run}}"),),
            "percentunit",
            requires="a GPU whose peak is known",
        ),
        Panel(
            "Time since the last step",
            "It rises during evaluations; an alert fires after 30 minutes.",
            (
                Query(
                    f"time() - propulsion:train_last_step_timestamp_seconds:last{{{_ON}}}",
                    "{{run}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Memory of rank 0",
            "Resident memory of the process that serves the metrics.",
            (Query('process_resident_memory_bytes{role="trainer"}', "{{instance}}"),),
            "bytes",
        ),
    ),
)

TRAINING = Dashboard(
    uid="propulsion-training",
    title="Propulsion: training",
    component="training",
    variables=(Variable("run", "label_values(propulsion_train_step_seconds_count, run)"),),
    rows=(_NOW, _LEARNING, _SPEED),
)
