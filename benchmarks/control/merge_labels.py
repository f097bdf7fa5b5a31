"""Put the labels of several runs together: `python -m benchmarks.control.merge_labels NAME LABELS.jsonl...`.

Of a prompt with several lines, the one with most tiers is kept. Writes benchmarks/results/control/NAME.jsonl.gz,
without texts, and NAME.json: where, when and of what the labels are, and what they say of themselves.
"""

from __future__ import annotations

import argparse
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.harness import ROOT
from calibration.artifacts.digest import file_digest
from calibration.control.labelling.label_lines import LabelLine, encode_lines
from calibration.control.labelling.label_report import describe_labels
from calibration.evaluate.machine import machine

RESULTS = ROOT / "benchmarks" / "results" / "control"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("labels", type=Path, nargs="+")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    lines: dict[str, LabelLine] = {}
    for path in options.labels:
        for text in path.read_bytes().splitlines():
            line = msgspec.structs.replace(msgspec.json.decode(text, type=LabelLine), prompt=None)
            if line.id not in lines or len(line.tiers) > len(lines[line.id].tiers):
                lines[line.id] = line
    merged = sorted(lines.values(), key=lambda line: line.id)
    packed = RESULTS / f"{options.name}.jsonl.gz"
    packed.write_bytes(gzip.compress(encode_lines(merged), mtime=0))
    about = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "note": options.note,
        "machine": machine(),
        "labels": len(merged),
        "sha256": file_digest(packed),
        "sources": len({line.source for line in merged}),
        "kinds": len({line.kind for line in merged}),
        "reference": merged[0].reference,
        "checkpoints": {tier: digest for line in merged for tier, digest in line.checkpoints.items()},
        "tiers": describe_labels(merged),
    }
    (RESULTS / f"{options.name}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
