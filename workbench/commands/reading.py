"""`lens`, `probe`, `restore`: where an answer becomes readable, and which states bring it back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from workbench.commands.command import Answer, Command
from workbench.commands.desk import TERMINAL, Desk
from workbench.commands.fact_sets import declare_facts, describe_skipped, tell_skipped
from workbench.commands.fact_sets import read_settings as read_fact_settings
from workbench.commands.questions import declare_model, declare_question, declare_seed
from workbench.commands.terminal import clean_text, format_table, quote
from workbench.fact_items import Skipped, build_items, choose_facts
from workbench.settings import Question, Settings

if TYPE_CHECKING:
    from circuits.component_effects import Item
    from probes.models import Model

# What a probe can predict of a fact.
LABELS = ("object", "relation", "kind")
FOLDS = ("wordings", "facts")


def declare_lens(parser: argparse.ArgumentParser) -> None:
    """The question, the model, and how a tuned lens is trained."""
    declare_question(parser)
    declare_model(parser)
    parser.add_argument(
        "--tuned", action="store_true", help="with one affine map a layer, trained here on the documents"
    )
    parser.add_argument(
        "--everywhere",
        action="store_true",
        help="in the JSON document also every position of the prompt, not its end alone",
    )
    parser.add_argument(
        "--steps", metavar="N", type=int, default=100, help="updates of each map (default: %(default)s)"
    )
    parser.add_argument(
        "--documents", metavar="N", type=int, default=64, help="documents to train on at most (default: %(default)s)"
    )
    declare_seed(parser)


def read_question(options: argparse.Namespace) -> tuple[Question, Settings]:
    """One question and its settings. Raises UserError for several facts at once."""
    if len(options.fact) > 1:
        raise UserError("one question is asked at a time: give --fact once")
    fields = {name: getattr(options, name) for name in ("prompt", "answer", "foil", "counterfactual")}
    question = Question(fact=options.fact[0] if options.fact else "", **fields)
    question.check()
    names = ("model", "bank", "reading", "memory", "memories", "memory_ids", "faithful", "text", "dtype", "device")
    values = {name: getattr(options, name) for name in (*names, "device_map", "trust_remote_code", "seed")}
    return question, Settings(**values)


def read_layers(options: argparse.Namespace, desk: Desk = TERMINAL) -> Answer:
    """Best token, and probability and rank of the answer's first token, at every depth at the prompt's end."""
    if options.steps < 0 or options.documents < 1:
        raise UserError("--steps must be 0 or more, --documents 1 or more")
    question, settings = read_question(options)
    from workbench.cases import resolve
    from workbench.lens_tables import read_lens_table
    from workbench.readouts import read_prompt, train_on_documents

    with desk.progress() as tick:
        engine = desk.open_engine(settings, tick)
        # A lens reads one prompt: nothing is ablated, and no foil has to be as long as the answer.
        case = resolve(engine, question, replace(settings, ablation="zero", metric="log-prob"))[0]
        lens = None
        if options.tuned:
            lens = train_on_documents(engine, options.documents, options.steps, options.seed, tick)
        ids, answer = case.pair.clean_ids, case.pair.answer_ids[0]
        found = read_prompt(engine, case, lens)
        everywhere = None
        if options.everywhere:
            attachment = engine.attach(case.clean.path, case.clean.memories)
            everywhere = read_lens_table(engine, tuple(ids), answer, attachment, lens, tick)
    rows: list[dict[str, Any]] = []
    for depth, row in enumerate(found):
        best = int(row.argmax())
        rows.append(
            {
                "layer": depth,
                "best": engine.model.decode(best),
                "best_probability": float(row[best].exp()),
                "answer_probability": float(row[answer].exp()),
                "answer_rank": 1 + int((row > row[answer]).sum()),
            }
        )
    document = {
        "lens": "tuned" if options.tuned else "logit",
        "prompt": case.pair.clean,
        "answer": engine.model.decode(answer),
        "position": len(ids) - 1,
        "layers": rows,
        "everywhere": None if everywhere is None else everywhere.to_json(),
        "training": None if lens is None else {"unit": "nats", "kl_before_after": [list(pair) for pair in lens.losses]},
    }
    cells = [
        (
            name_depth(row["layer"], engine.model),
            quote(row["best"]),
            row["best_probability"],
            row["answer_probability"],
            row["answer_rank"],
        )
        for row in rows
    ]
    table = format_table(("stream", "best token", "probability", f"of {quote(document['answer'])}", "rank"), cells)
    return Answer(document, f"{document['lens']} lens at the end of {quote(case.pair.clean)}\n\n{table}")


def name_depth(depth: int, model: Model) -> str:
    """What a depth is called."""
    return "after the last layer" if depth == model.layers else f"before layer {depth}"


def declare_probe(parser: argparse.ArgumentParser) -> None:
    """The facts, the label, and where the stream is read."""
    declare_facts(parser, limit=20, wordings=4)
    parser.add_argument("--label", choices=LABELS, default="object", help="what is predicted (default: %(default)s)")
    parser.add_argument(
        "--least", metavar="N", type=int, default=2, help="facts that share a label, at least (default: %(default)s)"
    )
    parser.add_argument(
        "--folds",
        choices=FOLDS,
        default="wordings",
        help="what a probe is tested on and not trained on: other wordings of the same facts, so that the control may "
        "be learnt by heart too, or other facts with the same label (default: %(default)s)",
    )
    parser.add_argument(
        "--position",
        metavar="last|subject|N",
        action="append",
        default=[],
        help="where the stream is read: the prompt's last token, the subject's last token, or the token of a number, "
        "below 0 from the end; repeatable (default: last)",
    )


def probe_layers(options: argparse.Namespace, desk: Desk = TERMINAL) -> Answer:
    """Accuracy and selectivity of a linear probe at every depth, at each of the positions."""
    if options.least < 1:
        raise UserError(f"--least is {options.least}: give 1 or more")
    settings = read_fact_settings(options)
    from probes.linear_probe import probe_labels
    from workbench.readouts import fold_facts, fold_wordings, stack_items

    positions = list(dict.fromkeys(options.position or ["last"]))
    with desk.progress() as tick:
        engine = desk.open_engine(settings, tick)
        facts = choose_facts(engine.facts, options.fact, options.relation, options.split, options.limit, options.seed)
        items, skipped = build_items(engine, facts, settings, options.wordings)
        label_of = {fact.id: str(getattr(fact, options.label)) for fact in facts}
        items, missing = keep_probed(items, label_of, positions, options.least)
        skipped += missing
        if not items:
            raise UserError(
                f"no {options.label} is shared by {options.least} facts: lower --least, raise --limit or choose --label"
                f"; {describe_skipped(skipped)}"
            )
        labels, types = [label_of[item.fact] for item in items], [item.fact for item in items]
        features = stack_items(engine, items, positions, tick)
        folds = fold_wordings(items) if options.folds == "wordings" else fold_facts(items, label_of)
        rows: list[dict[str, Any]] = []
        for position, streams in zip(positions, features, strict=True):
            for depth, stream in enumerate(streams):
                tick("probes", len(rows), features.shape[0] * features.shape[1])
                found = probe_labels(stream, labels, types, folds, options.seed)
                rows.append({"position": position, "layer": depth, **asdict(found)})
    document = {
        "label": options.label,
        "positions": positions,
        "items": len(items),
        "facts": len(set(types)),
        "labels": len(set(labels)),
        "folds": options.folds,
        "layers": rows,
        "skipped": [asdict(one) for one in skipped],
    }
    numbers = ("accuracy", "control", "selectivity", "majority")
    cells = [(r["position"], name_depth(r["layer"], engine.model), *(r[name] for name in numbers)) for r in rows]
    title = f"{options.label} of {len(set(types))} facts in {len(items)} prompts, {len(set(labels))} labels"
    title += tell_skipped(skipped)
    return Answer(document, f"{title}\n\n{format_table(('position', 'stream', *numbers), cells)}")


def keep_probed(
    items: Sequence[Item], label_of: dict[str, str], positions: Sequence[str], least: int
) -> tuple[list[Item], list[Skipped]]:
    """Items that have every position and whose label `least` facts share, and facts without one, by the reason.

    Raises UserError for a position that is none.
    """
    from collections import Counter

    from workbench.readouts import find_position

    there = [item for item in items if min(find_position(item, position) for position in positions) >= 0]
    lost = Counter(item.fact for item in items)
    lost.subtract(item.fact for item in there)
    skipped = [
        Skipped(fact, f"{number} of its prompts lack a position ({', '.join(positions)})")
        for fact, number in lost.items()
        if number
    ]
    shared = Counter(label_of[name] for name in dict.fromkeys(item.fact for item in there))
    return [item for item in there if shared[label_of[item.fact]] >= least], skipped


def declare_restore(parser: argparse.ArgumentParser) -> None:
    """The question, the model, and what is put back."""
    declare_question(parser)
    declare_model(parser)
    parser.add_argument(
        "--state",
        choices=("stream", "attention", "mlp"),
        default="stream",
        help="the stream before a layer, or what attention or MLP (with memories) adds there (default: %(default)s)",
    )
    declare_seed(parser)


def restore(options: argparse.Namespace, desk: Desk = TERMINAL) -> Answer:
    """Share of the clean metric that each state brings back into the counterfactual run."""
    question, settings = read_question(options)
    from circuits.causal_tracing import restore_states
    from workbench.cases import resolve
    from workbench.problems import pose

    with desk.progress() as tick:
        engine = desk.open_engine(settings, tick)
        case = resolve(engine, question, settings)[0]
        problem = pose(engine, [case], settings, tick, parts=True)
        found = restore_states(problem, options.state, tick)
    shares = found.normalise()
    tokens = [engine.model.decode(token) for token in case.pair.fed_ids[0]]
    document: dict[str, Any] = {
        "method": "causal tracing, symmetric token replacement, one layer at a time",
        "state": found.state,
        "metric": found.metric,
        "unit": found.unit,
        "clean": found.clean,
        "corrupted": found.corrupted,
        "prompt": case.pair.clean,
        "counterfactual": case.pair.counterfactual,
        "tokens": tokens,
        "restored": found.values.tolist(),
        "share": shares.tolist(),
    }
    headings = ("position", *(str(layer) for layer in range(len(shares))))
    cells = [
        (f"{position} {quote(token)}", *(f"{value:.2f}" for value in shares[:, position]))
        for position, token in enumerate(tokens)
    ]
    about = (
        f"{found.state} put back, by layer, as shares of {found.clean:.3f} (clean) against {found.corrupted:.3f} "
        f"({clean_text(case.pair.counterfactual)}) in {found.metric}, {found.unit}"
    )
    return Answer(document, f"{about}\n\n{format_table(headings, cells)}")


LENS = Command(
    "lens",
    "What the stream already predicts at every layer: logit lens, or tuned lens trained here.",
    'memory-circuits lens --prompt "The capital of France is" --answer " Paris"',
    declare_lens,
    read_layers,
)
PROBE = Command(
    "probe",
    "From which layer on an attribute of facts can be read off linearly, beside a control task (selectivity).",
    "memory-circuits probe --label relation --limit 10 --position subject --position last",
    declare_probe,
    probe_layers,
)
RESTORE = Command(
    "restore",
    "Causal tracing: which states, put back into the counterfactual run, bring the answer back.",
    'memory-circuits restore --prompt "The capital of France is" --answer " Paris" --foil " Rome" '
    '--counterfactual "The capital of Italy is" --state mlp',
    declare_restore,
    restore,
)
READINGS = (LENS, PROBE, RESTORE)
