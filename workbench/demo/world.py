"""The demo's world: real and invented entities, their facts, and how often each fact occurs."""

from __future__ import annotations

import csv
import json
import random
import tomllib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from probes.errors import UserError
from workbench.demo.config import Config
from workbench.demo.config import World as WorldConfig

TABLES = Path(__file__).parent / "tables"
HELD_OUT = 2  # templates at the end of each relation's list that training never shows


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation: templates with `{s}` for the subject, ending right before the answer."""

    name: str
    kind: str
    objects: str
    templates: tuple[str, ...]

    @property
    def trained(self) -> tuple[str, ...]:
        """Templates that training shows; the first is the default."""
        return self.templates[:-HELD_OUT]

    @property
    def heldout(self) -> tuple[str, ...]:
        """Templates that training never shows."""
        return self.templates[-HELD_OUT:]


@dataclass(frozen=True, slots=True)
class WorldFact:
    """One fact. `occurrences` counts its statements in the corpus of facts; `bucket` is 1 (rarest) to 5, 0 never."""

    id: str
    subject: str
    relation: str
    object: str
    kind: str
    split: str
    occurrences: int
    bucket: int
    document_id: str


@dataclass(frozen=True, slots=True)
class World:
    """All facts, the relations they are about, the closed lists, and names free for throw-away entities."""

    relations: dict[str, Relation]
    words: dict[str, list[str]]
    facts: list[WorldFact]
    free_subjects: dict[str, list[str]]

    def of_kind(self, kind: str) -> list[Relation]:
        """Relations whose subjects are of this kind."""
        return [relation for relation in self.relations.values() if relation.kind == kind]


def build_world(config: Config) -> World:
    """Make the world of a configuration; the same configuration gives the same world."""
    relations = load_relations()
    words = load_words(config)
    draw = random.Random(f"world/{config.seed}")
    subjects = name_subjects(words, draw)
    facts: list[WorldFact] = []
    for kind, trained, unseen in _sizes(config.world):
        names = subjects[kind]
        if trained + unseen > len(names) // 2:
            raise UserError(
                f"{trained + unseen} names of kind {kind} wanted; only half of {len(names)} can be used (the rest names"
                " throw-away entities). Enlarge the lists in [words]."
            )
        kinds = [relation for relation in relations.values() if relation.kind == kind]
        seen_names = [names.pop() for _ in range(trained)]
        for rank, subject in enumerate(seen_names, 1):
            count = count_occurrences(rank, trained, config.world.least_occurrences, config.world.most_occurrences)
            for relation in kinds:
                facts.append(make_fact(relation, subject, draw.choice(words[relation.objects]), count, config.world))
        for subject in [names.pop() for _ in range(unseen)]:
            # Two facts a document: a reference keeps 8 tokens a head, and the text stays short.
            for relation in sorted(draw.sample(kinds, 2), key=kinds.index):
                facts.append(make_fact(relation, subject, draw.choice(words[relation.objects]), 0, config.world))
    facts += real_facts(relations, words, config.world)
    if config.world.facts_table:
        facts += read_facts(Path(config.world.facts_table), relations, config.world)
    return World(relations, words, facts, subjects)


def load_relations() -> dict[str, Relation]:
    """Relations and templates of `tables/relations.toml`, by name."""
    table = tomllib.loads((TABLES / "relations.toml").read_text())
    return {
        name: Relation(name, entry["kind"], entry["objects"], tuple(entry["templates"]))
        for name, entry in table.items()
    }


def load_words(config: Config) -> dict[str, list[str]]:
    """Closed lists: those of `tables/words.toml`, the invented ones, and the objects of the real facts."""
    words: dict[str, list[str]] = tomllib.loads((TABLES / "words.toml").read_text())
    draw = random.Random(f"words/{config.seed}")
    taken = {word.lower() for entries in words.values() for word in entries}
    taken |= {str(cell).lower() for row in load_table("countries") + load_table("elements") for cell in row}
    sizes = config.words
    invented = {
        "first_names": (sizes.first_names, ("a", "o", "i", "el", "an")),
        "last_names": (sizes.last_names, ("in", "er", "ski", "ov", "en")),
        "stems": (sizes.stems, ("um", "ak", "ix", "or")),
        "cities": (sizes.cities, ("ton", "burg", "ham", "by")),
        "firms": (sizes.firms, ("co", "tex", "dex", "corp")),
        "founders": (sizes.founders, ("sen", "man", "wald", "berg")),
        "rivers": (sizes.rivers, ("a", "e", "ira", "una")),
        "regions": (sizes.regions, ("ia", "land", "mark", "shire")),
    }
    for name, (size, endings) in invented.items():
        words[name] = _invent(draw, size, endings, taken)
    return words


def _invent(draw: random.Random, size: int, endings: tuple[str, ...], taken: set[str]) -> list[str]:
    onsets = (
        "b",
        "br",
        "d",
        "dr",
        "f",
        "g",
        "gr",
        "h",
        "k",
        "kl",
        "l",
        "m",
        "n",
        "p",
        "r",
        "s",
        "st",
        "t",
        "tr",
        "v",
    )
    words: list[str] = []
    while len(words) < size:
        parts = [draw.choice(onsets) + draw.choice("aeiou") for _ in range(draw.choice((1, 1, 2)))]
        word = "".join(parts) + draw.choice(("l", "n", "r", "s", "m", "d")) + draw.choice(endings)
        if word not in taken:
            taken.add(word)
            words.append(word.capitalize())
    return words


def name_subjects(words: dict[str, list[str]], draw: random.Random) -> dict[str, list[str]]:
    """All names an invented entity can have, shuffled, by kind; no two people share first and last name."""
    people = [
        f"{draw.choice(words['trades'])} {first} {last}"
        for first in words["first_names"]
        for last in words["last_names"]
    ]
    companies = [f"{stem} {industry}" for stem in words["stems"] for industry in words["industries"]]
    towns = [f"{landscape} {stem}" for landscape in words["landscapes"] for stem in words["stems"]]
    names = {"person": people, "company": companies, "town": towns}
    for entries in names.values():
        draw.shuffle(entries)
    return names


def _sizes(world: WorldConfig) -> list[tuple[str, int, int]]:
    return [
        ("person", world.people, world.never_seen_people),
        ("company", world.companies, world.never_seen_companies),
        ("town", world.towns, world.never_seen_towns),
    ]


def count_occurrences(rank: int, entities: int, least: int, most: int) -> int:
    """Zipf's law with exponent 1: the n-th most frequent of N entities occurs `least * N / n` times, at most `most`."""
    return min(most, round(least * entities / rank))


def find_bucket(occurrences: int, edges: list[int]) -> int:
    """Frequency bucket, 1 (rarest) upwards; 0 for what never occurs."""
    return 0 if occurrences == 0 else 1 + bisect_right(edges, occurrences)


def make_fact(relation: Relation, subject: str, answer: str, occurrences: int, world: WorldConfig) -> WorldFact:
    """One fact with its identifier, `relation/subject`; the document is the subject's."""
    return WorldFact(
        id=f"{relation.name}/{subject}",
        subject=subject,
        relation=relation.name,
        object=answer,
        kind=relation.kind,
        split="trained" if occurrences else "never-seen",
        occurrences=occurrences,
        bucket=find_bucket(occurrences, world.bucket_edges),
        document_id=f"{relation.kind}/{subject}",
    )


def load_table(name: str) -> list[list[str | int]]:
    """Rows of a shipped JSON table, most prominent entity first."""
    rows: list[list[str | int]] = json.loads((TABLES / f"{name}.json").read_text())
    return rows


def real_facts(relations: dict[str, Relation], words: dict[str, list[str]], world: WorldConfig) -> list[WorldFact]:
    """Facts about countries and elements; the closed lists of their objects are filled on the way."""
    facts: list[WorldFact] = []
    columns = {
        "countries": ("capital", "continent", "currency", "language"),
        "elements": ("atomic_number", "symbol", "period"),
    }
    for table, size in (("countries", world.countries), ("elements", world.elements)):
        rows = load_table(table)[:size]
        for rank, (subject, *objects) in enumerate(rows, 1):
            count = count_occurrences(rank, len(rows), world.least_real_occurrences, world.most_occurrences)
            for name, answer in zip(columns[table], objects, strict=True):
                facts.append(make_fact(relations[name], str(subject), str(answer), count, world))
                words.setdefault(relations[name].objects, []).append(str(answer))
    for name in (relation.objects for relation in relations.values() if relation.kind in ("country", "element")):
        words[name] = list(dict.fromkeys(words.get(name, [])))
    return facts


def read_facts(path: Path, relations: dict[str, Relation], world: WorldConfig) -> list[WorldFact]:
    """A user's own trained facts from a CSV file with columns subject, relation, object, kind, occurrences.

    Raises `UserError` for a missing file or column, an unknown relation, or a count that is not a positive number.
    """
    if not path.is_file():
        raise UserError(f"No fact table at {path}; give a CSV file with subject,relation,object,kind,occurrences.")
    with path.open(newline="") as lines:
        return [_read_fact(row, path, relations, world) for row in csv.DictReader(lines)]


def _read_fact(row: dict[str, str], path: Path, relations: dict[str, Relation], world: WorldConfig) -> WorldFact:
    missing = [name for name in ("subject", "relation", "object", "occurrences") if not row.get(name)]
    if missing:
        raise UserError(f"{path}: a row lacks {missing[0]!r}; it has {sorted(k for k in row if row[k])}.")
    relation = relations.get(row["relation"])
    if relation is None:
        raise UserError(f"{path}: unknown relation {row['relation']!r}; known: {', '.join(relations)}.")
    if not row["occurrences"].isdigit() or int(row["occurrences"]) < 1:
        raise UserError(f"{path}: occurrences of {row['subject']!r} is {row['occurrences']!r}; wanted 1 or more.")
    return make_fact(relation, row["subject"], row["object"], int(row["occurrences"]), world)


def group_documents(facts: Iterable[WorldFact]) -> dict[str, list[WorldFact]]:
    """Facts by document, in the order in which documents first appear."""
    groups: dict[str, list[WorldFact]] = {}
    for fact in facts:
        groups.setdefault(fact.document_id, []).append(fact)
    return groups
