"""What is asked and of which model: the table of shipped facts, a typed prompt, model and memories."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import streamlit as st

from pages.session import get_places
from probes.errors import UserError
from probes.facts import Fact, find_fact
from workbench import library
from workbench.model_checks import find_missing, inspect_settings
from workbench.settings import READINGS, Question, Settings
from workbench.views.tables import search_facts, tabulate_facts
from workbench.views.text import plain, shorten

BUILT_IN = ("auto", "own", "none")
FACT, PROMPT = "A shipped fact", "My own prompt"
ANY = "any"
# Facts that the table lists at once; each is sent to the browser.
LISTED = 5000


def choose_settings() -> Settings:
    """Model and memories, in one place."""
    with st.expander("Model and memories", icon=":material/tune:"):
        first, second, reading, third, fourth = st.columns(5)
        model = first.text_input(
            "Model",
            "shipped",
            key="model",
            persist_state="session",
            help="`shipped`, a folder with a Hugging Face checkpoint, or a name on the Hugging Face hub. Files and "
            "folders are read below the working directory and below those that the app was started with (`--allow`).",
        )
        bank = second.selectbox(
            "Memory bank",
            ["auto", "none"],
            key="bank",
            persist_state="session",
            accept_new_options=True,
            help="Parametric memory blocks. auto: what comes with the model; none; or the folder of a bank.",
        )
        read = reading.selectbox(
            "Blocks read",
            list(READINGS),
            format_func=lambda name: READINGS[name].label,
            key="reading",
            persist_state="session",
            help="\n".join(f"- {choice.label}: {choice.explanation}" for choice in READINGS.values()),
        )
        memory = third.selectbox(
            "Explicit memory",
            [*BUILT_IN, *library.list_banks("memory")],
            key="memory",
            persist_state="session",
            accept_new_options=True,
            help="Key-values written from documents. auto: a never-seen fact's own document; own: every fact's "
            "own; none; or the folder of a bank of your own documents, in which the memories nearest to the prompt are "
            "found (folders below the working directory are listed).",
        )
        text = fourth.selectbox(
            "Text in the traced prompt",
            ["none", "auto"],
            key="text",
            persist_state="session",
            accept_new_options=True,
            help="auto puts the fact's document before the prompt when tracing; or the path of a text file. The "
            "condition `text` below is asked in any case.",
        )
        chosen = Settings(
            model=model.strip() or "shipped",
            bank=bank or "auto",
            reading=read or "fetched",
            memory=memory or "auto",
            text=text or "none",
            trust_remote_code=get_places().remote_code,
        )
        chosen = chosen if chosen.memory in BUILT_IN else choose_memories(chosen)
        show_notes(chosen)
        return chosen


def show_notes(settings: Settings) -> None:
    """What can be said of model and memories before they are loaded; what is in the way stands out."""
    marks = {"ok": ":material/check:", "unknown": ":material/help:", "missing": ":material/error:"}
    try:
        get_places().check_settings(settings)
    except UserError as error:
        st.error(plain(str(error)), icon=marks["missing"])
        return
    notes = inspect_settings(settings)
    st.caption("  \n".join(f"{marks[note.state]} {plain(note.text)}" for note in notes if note.state != "missing"))
    for note in notes:
        if note.state == "missing":
            st.error(plain(note.text), icon=marks["missing"])


def require_whole(settings: Settings) -> None:
    """Raise UserError for files outside the workspace, and for what model and memories lack, before loading any."""
    get_places().check_settings(settings)
    if missing := find_missing(inspect_settings(settings)):
        raise UserError(missing)


def choose_memories(settings: Settings) -> Settings:
    """How many memories of a bank are found, or which ones are read instead; and whether the prefix is."""
    first, second, third = st.columns([1, 2, 2], vertical_alignment="bottom")
    count = first.number_input(
        "Memories to find",
        1,
        100,
        settings.memories,
        key="memories",
        persist_state="session",
        help="Those nearest to the prompt in meaning. Each is a writer of its own in a trace.",
    )
    names = second.text_input(
        "Or read these",
        key="memory-ids",
        persist_state="session",
        placeholder="ids, with commas between them",
        help="`memory-circuits memory list` shows the ids of a bank.",
    )
    faithful = third.checkbox(
        "Prefix at every layer",
        key="faithful",
        persist_state="session",
        help="Read the bank's prefix beside the memories at every head of every layer, as the paper does. A model must "
        "have been trained so; the shipped one was not.",
    )
    return replace(settings, memories=int(count), memory_ids=names.strip(), faithful=faithful)


def choose_question() -> Question | None:
    """A shipped fact or a typed prompt; None while there is nothing to ask."""
    source = st.segmented_control(
        "Ask about",
        [FACT, PROMPT],
        default=FACT,
        required=True,
        key="source",
        persist_state="session",
        label_visibility="collapsed",
    )
    if source == PROMPT:
        return type_prompt()
    try:
        fact = choose_fact(library.read_shipped_facts())
    except UserError as error:
        st.error(plain(str(error)), icon=":material/error:")
        return None
    return Question(fact=fact.id) if fact is not None else None


def type_prompt() -> Question | None:
    """A prompt that ends right before its answer, and what to compare it with."""
    prompt = st.text_area(
        "Prompt",
        key="prompt",
        height=80,
        persist_state="session",
        placeholder="The capital of Norland is",
        help="It ends right before the answer, without a space at its end.",
    )
    first, second, third = st.columns([1, 1, 3])
    answer = first.text_input("Answer (optional)", key="typed-answer", persist_state="session")
    foil = second.text_input(
        "Foil (optional)", key="typed-foil", persist_state="session", help="The answer to compare with."
    )
    counterfactual = third.text_input(
        "Counterfactual prompt (optional)",
        key="counterfactual",
        persist_state="session",
        help="A prompt of as many tokens that leads to the foil. Without it, choose mean or zero ablation.",
    )
    if not prompt.strip():
        st.caption("Type a prompt to ask.")
        return None
    return Question(prompt=prompt, answer=answer, foil=foil, counterfactual=counterfactual)


def filter_facts(facts: tuple[Fact, ...]) -> tuple[list[Fact], str]:
    """Facts that the three filters leave, and a name of the filters."""
    first, second, third, fourth, fifth = st.columns([3, 2, 2, 1, 1])
    words = first.text_input(
        "Search", key="words", placeholder="subject, relation, object, id or document", persist_state="session"
    )
    relations = [ANY, *sorted({fact.relation for fact in facts})]
    splits = [ANY, *sorted({fact.split for fact in facts if fact.split})]
    relation = second.selectbox("Relation", relations, key="relation", persist_state="session")
    split = third.selectbox(
        "Split",
        splits,
        key="split",
        persist_state="session",
        help="never-seen facts do not occur in training: only memory or text can answer them.",
    )
    buckets = [ANY, *map(str, sorted({fact.bucket for fact in facts if fact.bucket >= 0}))]
    bucket = fourth.selectbox(
        "Bucket",
        buckets,
        key="bucket",
        persist_state="session",
        help="1 rarest in training to 5 most frequent; 0: never.",
    )
    cluster = fifth.text_input(
        "Cluster",
        key="cluster",
        persist_state="session",
        placeholder="3 › 7",
        help="First clusters of the path through the memory bank, one a level.",
    )
    chosen = int(bucket) if bucket != ANY else None
    none = "" if relation == ANY else relation, "" if split == ANY else split
    found = search_facts(facts, words, *none, chosen, read_path(cluster))
    return found, name_filters(words, relation, split, bucket, cluster)


def read_path(text: str) -> tuple[int, ...]:
    """Clusters of a path as it is written in the table; all that is no number stands between them."""
    return tuple(int(number) for number in re.findall(r"[0-9]{1,9}", text))


def name_filters(*filters: str) -> str:
    """Short name of what the filters are set to: another table, another selection."""
    return hashlib.sha256(repr(filters).encode()).hexdigest()[:12]


def read_linked_fact(facts: tuple[Fact, ...]) -> Fact | None:
    """The fact a link names, else the one chosen before. Says so when there is no such fact."""
    linked = st.query_params.get("fact", "")
    chosen = linked or st.session_state.get("fact", "")
    if not chosen:
        return None
    try:
        return find_fact(facts, chosen)
    except UserError as error:
        st.warning(plain(str(error)))
        return None


def choose_fact(facts: tuple[Fact, ...]) -> Fact | None:
    """The searchable table of facts and the chosen one in words."""
    found, filters = filter_facts(facts)
    listed = found[:LISTED]
    event = st.dataframe(
        tabulate_facts(listed),
        hide_index=True,
        height=248,
        key=f"facts-{filters}",
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "bucket": st.column_config.NumberColumn(
                help="How often training states the fact, 1 rarest to 5 most frequent; 0: never.", width="small"
            ),
            "clusters": st.column_config.TextColumn(help="Path through the memory bank, one cluster a level."),
            "document": st.column_config.TextColumn(help="The text that states the fact.", width="large"),
        },
        alt="Shipped facts",
    )
    rows = event["selection"]["rows"]
    picked = listed[rows[0]].id if rows and rows[0] < len(listed) else ""
    if picked and picked != st.session_state.get("picked-fact"):
        st.query_params["fact"] = picked
    st.session_state["picked-fact"] = picked
    fact = read_linked_fact(facts)
    st.session_state["fact"] = fact.id if fact is not None else ""
    if fact is None:
        more = f"; the first {LISTED:,} are listed, the search finds the others" if len(found) > LISTED else ""
        st.caption(f"{len(found):,} of {len(facts):,} facts{more}. Select a row to choose one.")
    else:
        show_fact(fact)
    return fact


def show_fact(fact: Fact) -> None:
    """The chosen fact: its prompt with the answer, and its document."""
    with st.container(border=True):
        st.markdown(f"**{plain(fact.prompt)}** :blue[{plain(fact.answer.strip())}]")
        often = f"occurs {fact.occurrences:,} times in training" if fact.occurrences >= 0 else ""
        details = [fact.id, fact.split, often, f"document: {shorten(fact.document, 160)}" if fact.document else ""]
        st.caption(plain(" · ".join(detail for detail in details if detail)))
