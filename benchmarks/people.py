"""What a browser session does for `sessions.py`: ask a fact, trace it, cancel now and then, leave, meet a defect."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.async_api import TimeoutError as Late

from probes.facts import Fact

QUICK, PATIENCE = 180_000.0, 900_000.0
# Seconds between two looks at a page that waits for its work.
LOOK = 0.2
# Times that a list is opened before its closing is a fault.
OPENED = 4
# One trace of so many is a slow one (every edge patched), cancelled within so many seconds of its first progress.
CANCELLED_OF, LATEST = 4, 2.0
WORKS = re.compile(r"Tracing: (?!waiting|starting)")
WAITS = re.compile(r"waiting, number (\d+) in the queue")
DEFECT = "this is a defect of the workbench"


@dataclass
class Tally:
    """What all sessions saw.

    `asked`: the fact of each finished run; `left`: facts whose trace nobody waited for; `cancelled`: the number of each
    job whose Cancel was pressed while it worked, and the seconds of the monotonic clock then; `place`: the largest
    place in the queue that a page showed; `closings`: lists that closed before a choice was made; `faults`: a line for
    all that should not have happened.
    """

    asked: dict[str, str] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    cancelled: dict[str, float] = field(default_factory=dict)
    place: int = 0
    defects: int = 0
    closed: int = 0
    closings: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass
class Person:
    """A browser session with facts of its own; `ends` is on the monotonic clock."""

    number: int
    base: str
    context: Any
    page: Any
    facts: Sequence[Fact]
    draw: random.Random
    tally: Tally
    ends: float

    async def ask(self, fact: Fact) -> None:
        """Open the fact's link, ask, and wait for its own prompt above the answers."""
        await self.page.goto(f"{self.base}/?fact={fact.id}", timeout=QUICK)
        await self.page.get_by_role("button", name="Ask", exact=True).click(timeout=QUICK)
        heading = self.page.get_by_role("heading", name="What comes after")
        await heading.or_(self.page.get_by_test_id("stAlertContentError")).first.wait_for(timeout=PATIENCE)
        if not await heading.count():
            raise AssertionError(await self.read_error())
        shown = normalise(await heading.first.inner_text())
        if normalise(fact.prompt)[:60] not in shown:
            raise AssertionError(f"asked {fact.prompt!r} and was shown {shown!r}")

    async def read_error(self) -> str:
        """The page's error; nothing when it shows none."""
        return normalise(" ".join(await self.page.get_by_test_id("stAlertContentError").all_inner_texts()))

    async def press_trace(self, slow: bool = False) -> None:
        """Press the form's button; slow: by patching every edge."""
        if slow:
            await self.choose_method("Exact patching")
        await self.page.get_by_role("button", name="Trace", exact=True).click(timeout=QUICK)

    async def choose_method(self, name: str) -> None:
        """Choose in the list of methods; a list that closes before the choice is opened again and counted."""
        option = self.page.get_by_role("option", name=name, exact=True)
        for _ in range(OPENED):
            await self.page.get_by_role("combobox", name="Method").first.click(timeout=QUICK)
            try:
                await option.click(timeout=QUICK / OPENED)
                return
            except Late:
                self.tally.closings += 1
                await self.page.keyboard.press("Escape")
        raise AssertionError(f"the list of methods closed {OPENED} times")

    async def read_progress(self) -> str:
        """The line above the bar; nothing when there is none. Notes the place in the queue."""
        text = normalise(" ".join(await self.page.get_by_test_id("stProgress").all_inner_texts()))
        if found := WAITS.search(text):
            self.tally.place = max(self.tally.place, int(found.group(1)))
        return text

    async def wait_for_run(self) -> str:
        """Name of the run that the page leads to when the trace has ended. Raises AssertionError with its error."""
        ends = time.monotonic() + PATIENCE / 1000
        while time.monotonic() < ends:
            if "/circuit" in self.page.url and (name := read_last(self.page.url, "run")):
                return name
            await self.read_progress()
            if error := await self.read_error():
                raise AssertionError(error)
            await asyncio.sleep(LOOK)
        raise AssertionError("nothing came of a trace")

    async def trace(self, fact: Fact) -> None:
        """Trace to the end; the run is of this fact, as `sessions.py` looks up afterwards."""
        await self.press_trace()
        name = await self.wait_for_run()
        if name in self.tally.asked:
            raise AssertionError(f"the run {name} was handed out twice")
        self.tally.asked[name] = fact.id

    async def cancel(self) -> None:
        """Start a slow trace, and press Cancel when it has worked for a moment."""
        await self.press_trace(slow=True)
        ends = time.monotonic() + PATIENCE / 1000
        while not WORKS.search(await self.read_progress()):
            if time.monotonic() > ends or (error := await self.read_error()):
                raise AssertionError(f"a slow trace never worked: {error}")
            await asyncio.sleep(LOOK)
        await asyncio.sleep(self.draw.uniform(0, LATEST))
        job = read_last(self.page.url, "job")
        button = self.page.get_by_role("button", name="Cancel", exact=True)
        pressed = time.monotonic()
        await button.click(timeout=QUICK)
        self.tally.cancelled[job] = pressed
        await self.page.get_by_text("Tracing: cancelled").wait_for(timeout=QUICK)

    async def go_on(self) -> None:
        """One fact after another until the time is over; what goes wrong is a fault, and the next fact follows."""
        while time.monotonic() < self.ends:
            fact = self.draw.choice(self.facts)
            try:
                await self.ask(fact)
                if self.draw.randrange(CANCELLED_OF) == 0:
                    await self.cancel()
                else:
                    await self.trace(fact)
            except Exception as error:
                fault = f"session {self.number}, {fact.id}: {type(error).__name__}: {error}"[:400]
                self.tally.faults.append(f"{fault}; the page says {await self.read_page()!r}")

    async def read_page(self) -> str:
        """Whether the page's script runs, and what the page says, shortened."""
        state = await self.page.locator("[data-test-script-state]").first.get_attribute("data-test-script-state")
        return f"{state}: {normalise(await self.page.inner_text('body'))[:2000]}"

    async def leave(self, after: float) -> None:
        """Go on for a while, then close the browser's window in the middle of a trace."""
        self.ends = after
        await self.go_on()
        fact = self.facts[0]
        self.tally.left.add(fact.id)
        await self.ask(fact)
        await self.press_trace()
        await self.page.get_by_test_id("stProgress").first.wait_for(timeout=QUICK)
        await self.context.close()
        self.tally.closed += 1

    async def meet_defect(self, after: float, broken: Fact) -> None:
        """Go on for a while, trace the fact that raises, see that it is told, and go on."""
        self.ends, ends = after, self.ends
        await self.go_on()
        try:
            await self.ask(broken)
            await self.press_trace()
            name = await self.wait_for_run()
            self.tally.faults.append(f"the trace that raises made the run {name}")
        except AssertionError as error:
            if DEFECT not in str(error):
                self.tally.faults.append(f"the trace that raises told {error}")
            self.tally.defects += 1
        self.ends = ends
        await self.go_on()


def normalise(text: str) -> str:
    """Text as it was before it was made safe to show."""
    return " ".join(text.replace("\u2060", "").split())


def read_last(url: str, name: str) -> str:
    """The last value of a parameter of an address."""
    return parse_qs(urlsplit(url).query).get(name, [""])[-1]
