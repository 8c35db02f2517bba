"""Cut the demo's small samples out of the published data sets.

    python examples/data/make_samples.py --data DATA

Test samples hold every answer equally often, so that the most frequent answer is right half the
time. A training record that repeats a test record, in whole or in eight consecutive words, is
left out. Seeded: the same data give the same files.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parents[1] / "tiny_base"))
from corpus import Decontaminator

Record = TypeVar("Record")

TEST_RECORDS = 400
TRAIN_RECORDS = {"sst2": 16_000, "boolq": 5_000}


def balanced(
    records: Sequence[Record], label: Callable[[Record], str], size: int, rng: random.Random
) -> list[Record]:
    """`size` records with every label equally often, in random order."""
    by_label = defaultdict(list)
    for record in records:
        by_label[label(record)].append(record)
    per_label = size // len(by_label)
    sample = [r for name in sorted(by_label) for r in rng.sample(by_label[name], per_label)]
    rng.shuffle(sample)
    return sample


def split(
    train: Sequence[Record],
    test: Sequence[Record],
    text: Callable[[Record], str],
    label: Callable[[Record], str],
    train_size: int,
) -> tuple[list[Record], list[Record]]:
    """Balanced test sample, and a training sample that repeats nothing of it."""
    rng = random.Random(0)
    test_sample = balanced(test, label, TEST_RECORDS, rng)
    clean = Decontaminator(text(record) for record in test_sample)
    usable = [record for record in train if not clean.repeats_test(text(record))]
    return rng.sample(usable, min(train_size, len(usable))), test_sample


def read_tsv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def write_tsv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with glue/, reasoning/, …")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()

    header, *train = read_tsv(args.data / "glue/SST-2/train.tsv")
    _, *test = read_tsv(args.data / "glue/SST-2/dev.tsv")
    samples = split(train, test, lambda r: r[0], lambda r: r[1], TRAIN_RECORDS["sst2"])
    for name, rows in zip(("train", "test"), samples, strict=True):
        write_tsv(args.out / f"sst2/{name}.tsv", [header, *rows])

    boolq = args.data / "reasoning/boolq"
    records = split(
        json.loads((boolq / "train.json").read_text()),
        json.loads((boolq / "test.json").read_text()),
        lambda r: r["instruction"].split("question:", 1)[-1].split("\n\n")[0],
        lambda r: r["answer"],
        TRAIN_RECORDS["boolq"],
    )
    for name, sample in zip(("train", "test"), records, strict=True):
        path = args.out / f"boolq/{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(sample, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
