"""Tables of interventions: answers before and after, all of a session, tokens that a node writes for."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.interventions import Outcome, Shift, WrittenTokens
from workbench.views.tables import Columns
from workbench.views.text import shorten, show_token


def tabulate_shifts(shifts: Sequence[Shift]) -> Columns:
    """One row a next token."""
    return {
        "token": [show_token(shift.text) for shift in shifts],
        "": [shift.role for shift in shifts],
        "before": [shift.before for shift in shifts],
        "after": [shift.after for shift in shifts],
    }


def tabulate_outcomes(outcomes: Sequence[Outcome]) -> Columns:
    """One row an intervention, the latest first."""
    return {
        "nodes": [shorten(", ".join(outcome.nodes), 60) for outcome in outcomes],
        "factor": [outcome.factor for outcome in outcomes],
        "before": [outcome.before for outcome in outcomes],
        "after": [outcome.after for outcome in outcomes],
        "unit": [outcome.unit for outcome in outcomes],
        "ablation": [outcome.ablation for outcome in outcomes],
    }


def tabulate_written(written: WrittenTokens) -> Columns:
    """One row a rank: the token pointed to, and the one pointed away from."""
    return {
        "towards": [show_token(text) for text, _ in written.towards],
        "logit": [value for _, value in written.towards],
        "away": [show_token(text) for text, _ in written.away],
        "logit away": [value for _, value in written.away],
    }
