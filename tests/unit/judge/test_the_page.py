"""docs/apps/judge.md ticks off the specification: every proof that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "apps" / "judge.md"
PROOF = re.compile(r"`((?:[\w/]+/)?test_\w+\.py)(?:::(\w+))?`")


def test_every_proof_exists() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| x |")]
    assert len(rows) >= 50
    for row in rows:
        proofs = PROOF.findall(row)
        assert proofs or "bench/judge.py" in row, row
        for name, test in proofs:
            path = ROOT / name if "/" in name else ROOT / "tests" / "unit" / "judge" / name
            assert path.is_file(), row
            assert not test or f"def {test}(" in path.read_text(encoding="utf-8"), f"{name} has no {test}"
