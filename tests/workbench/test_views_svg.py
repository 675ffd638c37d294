"""SVG: parses as XML, carries no script, and shows what others wrote as text alone."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np

from workbench.runs import Run
from workbench.views.drawing import View
from workbench.views.figures import gather_attention
from workbench.views.graph_component import encode_attention, encode_drawing, encode_tokens, read_source, sign_data
from workbench.views.layout import lay_out
from workbench.views.svg import draw_run, wrap, write_svg

HOSTILE = ["<img onerror=x>", "</script>", "$\\write18{}", "=cmd()", "\x00\x1b\u202e", "]]>&amp;\n"]
NAMES = "{http://www.w3.org/2000/svg}"


def list_texts(svg: str) -> list[str]:
    """Everything a reader of the picture sees or hears."""
    return [element.text or "" for element in ElementTree.fromstring(svg.encode()).iter()]


def test_the_picture_is_xml_and_repeatable(build_run: Any) -> None:
    svg = draw_run(build_run())
    assert svg == draw_run(build_run())
    root = ElementTree.fromstring(svg.encode())
    assert root.tag == f"{NAMES}svg"
    assert float(root.attrib["width"]) > 0


def test_only_harmless_elements_occur(build_run: Any) -> None:
    root = ElementTree.fromstring(draw_run(build_run(tokens=HOSTILE, edges=120)).encode())
    allowed = {"svg", "g", "path", "rect", "text", "title", "desc"}
    assert {element.tag.removeprefix(NAMES) for element in root.iter()} <= allowed
    names = {name for element in root.iter() for name in element.attrib}
    assert not [name for name in names if name.startswith("on") or "href" in name]


def test_hostile_text_is_text(build_run: Any) -> None:
    texts = list_texts(draw_run(build_run(tokens=HOSTILE, edges=120)))
    assert any("<img·onerror=x>" in text for text in texts)
    assert any("\\x00\\x1b\\u202e" in text for text in texts)
    assert not [text for text in texts if set(text) & set("\x00\x1b\u202e")]


def test_title_description_and_caption_say_how_it_was_measured(run: Run) -> None:
    svg = write_svg(lay_out(run.circuit, run.tokens, View(edges=20)), "A title", "")
    whole = " ".join(list_texts(svg))
    assert "A title" in whole
    for words in ("20 strongest of 30 edges", "EAP", "counterfactual ablation", "logit difference", "One of many"):
        assert words in whole


def test_the_legend_names_what_is_there(build_run: Any) -> None:
    whole = " ".join(list_texts(draw_run(build_run(edges=120))))
    for words in ("attention head", "MLP", "memory-bank block", "helps the answer", "hurts the answer"):
        assert words in whole


def test_the_selected_node_has_a_ring(run: Run) -> None:
    node = run.circuit.nodes[0].id
    assert draw_run(run, selected=node).count("<path") == draw_run(run).count("<path") + 1


def test_wrap_breaks_between_words() -> None:
    assert wrap("one two three", 1, 10) == ["one", "two", "three"]
    assert wrap("one two three", 1000, 10) == ["one two three"]


def test_the_component_gets_plain_data_with_a_signature(run: Run) -> None:
    one = encode_drawing(lay_out(run.circuit, run.tokens, View()))
    two = encode_drawing(lay_out(run.circuit, run.tokens, View(edges=3)))
    assert sign_data(one) == sign_data(encode_drawing(lay_out(run.circuit, run.tokens, View())))
    assert sign_data(one) != sign_data(two)
    assert len(one["nodes"]) >= len(run.circuit.nodes)


def test_the_components_never_write_markup() -> None:
    for name in ("graph", "tokens", "attention"):
        source = read_source(name)
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"):
            assert word not in source.js.replace("http://www.w3.org/2000/svg", ""), (name, word)


def test_tokens_carry_what_was_kept() -> None:
    tokens = encode_tokens(["a", "b"], {1: float(np.float16(0.25))})
    assert tokens == [{"text": "a", "kept": False, "share": 0.0}, {"text": "b", "kept": True, "share": 0.25}]


def test_attention_is_data_with_memories_first(build_run: Any) -> None:
    run = build_run(tokens=("<b>x</b>", "&", "c"))
    found = encode_attention(run, 1, 0, 2)
    assert found["rows"][0] == "0 <b>x</b>" and found["columns"][found["memories"] :] == found["rows"]
    assert [len(row) for row in found["weights"]] == [len(found["columns"])] * 3
    np.testing.assert_allclose(found["weights"], gather_attention(run, 1, 0)[0], atol=5e-4)
    assert found["reading"] == 2 and encode_attention(run, 0, 0, 1)["memories"] == 0
