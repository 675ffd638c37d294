"""A bounded share of the fuzzing in the suite: some cases of every target, the same ones every time.

`python -m benchmarks.fuzzing` runs as many as are asked for. hypothesis draws the numbers of cases, derandomised and
without a database; what it finds becomes a test of its own in `test_found.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmarks.fuzzing import choose_targets, read_counts
from tests.fuzz import banks, checkpoints, commands, documents, files, links, tables
from tests.fuzz.cases import Target, draw_case, judge

# Cases of each target.
CASES = {files: 40, banks: 25, tables: 30, documents: 25, commands: 60, checkpoints: 8, links: 5}
TARGETS = [(target, count) for module, count in CASES.items() for target in module.TARGETS]


@pytest.mark.parametrize(("target", "count"), TARGETS, ids=[target.name for target, _ in TARGETS])
def test_every_case_works_or_is_refused_with_one_line(tmp_path: Path, target: Target, count: int) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    attempt = target.prepare(workspace)

    @settings(
        max_examples=count, derandomize=True, database=None, deadline=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 2**32))
    def check(number: int) -> None:
        outcome = judge(attempt, draw_case(target.name, 0, number), workspace)
        assert not outcome.fault and not outcome.outside, f"case {number}: {outcome.fault or outcome.outside}"

    check()
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_cases_of_several_targets() -> None:
    counts = read_counts(["link to *=400", " command line = 5", "link to ask=7"])
    assert counts == {target.name: 400 for target in links.TARGETS} | {"command line": 5, "link to ask": 7}
    for word in ("link to=4", "nothing*=4", "command line=many", "command line", "=3"):
        with pytest.raises(SystemExit, match=r"is not TARGET=COUNT|is none of the targets: .*FFN bank"):
            read_counts([word])
    assert choose_targets(["link to *"], "1/1") == [*links.TARGETS]
    with pytest.raises(SystemExit, match="'nothing' is none of the targets"):
        choose_targets(["nothing"], "1/1")
