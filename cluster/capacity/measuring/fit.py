"""From waves' times to the parts of a step: non-negative least squares of relative errors.

A wave of c requests, p prompt tokens and o answer tokens to an idle replica takes, by the model
that the simulation follows: one step for the request that comes first, one for those that came
meanwhile, and o - 1 steps that give each sequence a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cluster.capacity.measuring.waves import Timing, Wave
from cluster.capacity.times import Fit, StepTimes


def fit_steps(timings: Mapping[Wave, Sequence[Timing]]) -> tuple[StepTimes, float, Fit]:
    """The parts of a step, a request's own way in seconds, and how well they fit.

    Args:
        timings: repeats of each wave.
    """
    from scipy.optimize import nnls

    rows, seconds, spreads = [], [], []
    for wave, repeats in timings.items():
        makespans = np.array([timing.makespan for timing in repeats])
        means = np.array([timing.first_token_mean for timing in repeats])
        rows += [_makespan_row(wave), _first_token_row(wave)]
        seconds += [float(np.median(makespans)), float(np.median(means))]
        low, high = np.quantile(makespans, [0.25, 0.75])
        spreads.append((high - low) / np.median(makespans))
    design, measured = np.array(rows), np.array(seconds)
    found, _ = nnls(design / measured[:, None], np.ones(len(measured)))
    errors = np.abs(design @ found / measured - 1)
    fixed, sequence, token, admission, way = found.tolist()
    return (
        StepTimes(
            fixed_seconds=fixed,
            per_sequence_seconds=sequence,
            per_prefill_token_seconds=token,
            per_admission_seconds=admission,
        ),
        way,
        Fit(
            waves=len(timings),
            median_error=float(np.median(errors)),
            worst_error=float(errors.max()),
            spread=float(np.median(spreads)),
        ),
    )


def _makespan_row(wave: Wave) -> list[float]:
    """How often each part occurs in a wave: fixed, sequence, prompt token, admission, way."""
    c, p, o = wave.concurrency, wave.prompt_tokens, wave.output_tokens
    admitting = 1 if c == 1 else 2
    return [o - 1 + admitting, c * (o - 1) + (c > 1), c * p, c, 1]


def _first_token_row(wave: Wave) -> list[float]:
    """The same until the mean of the first tokens: one comes first, the others together."""
    c, p = wave.concurrency, wave.prompt_tokens
    later = (c - 1) / c
    return [1 + later, later, p * (1 / c + later * c), 1 / c + later * c, 1]
