"""`doctor`: what is installed and what is missing, with how to get it."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from workbench.commands.command import Answer, Command
from workbench.commands.terminal import clean_text
from workbench.doctor import Finding, examine, is_sound

MARKS = {"ok": "✓", "missing": "–", "broken": "✗"}


def declare_doctor(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def format_finding(finding: Finding, width: int) -> str:
    """One line a finding, and one more that says what to do."""
    line = f"{MARKS[finding.state]} {finding.name.ljust(width)}  {clean_text(finding.detail)}".rstrip()
    return f"{line}\n  {' ' * width}  → {clean_text(finding.remedy)}" if finding.remedy else line


def report_health(options: argparse.Namespace) -> Answer:
    """Examine the installation; exit code 1 when something that is required is broken."""
    findings = examine()
    width = max(len(finding.name) for finding in findings)
    sound = is_sound(findings)
    verdict = "all that is required is here" if sound else "something required is broken: see ✗ above"
    text = "\n".join([*(format_finding(finding, width) for finding in findings), verdict])
    return Answer({"ok": sound, "findings": list(map(asdict, findings))}, text, code=0 if sound else 1)


DOCTOR = Command(
    "doctor",
    "Say what is installed, what is missing and how to get it; exit code 1 when something required is broken.",
    "memory-circuits doctor",
    declare_doctor,
    report_health,
)
