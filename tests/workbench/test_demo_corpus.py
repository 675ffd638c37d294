"""The demo's corpus: same seed, same text; exact counts; one-token answers; never-seen facts never stated."""

from __future__ import annotations

import dataclasses
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from probes.errors import UserError
from workbench.demo.build import draw_questions
from workbench.demo.clusters import grow_tree, share_hits
from workbench.demo.config import DEFAULT, Config, load_config, parse_config
from workbench.demo.corpus import Passage, ask, invent_reading, write_corpus, write_documents, write_reading
from workbench.demo.tasks import TASKS, write_exercises
from workbench.demo.tokenizer import check_answers, encode, train_tokenizer
from workbench.demo.whitening import fit_whitening
from workbench.demo.world import World, build_world, find_bucket, load_relations


def shrink() -> Config:
    """The default with a small world."""
    default = tomllib.loads(DEFAULT.read_text())
    world = {"people": 40, "companies": 20, "towns": 20, "countries": 12, "elements": 20}
    world |= {"never_seen_people": 6, "never_seen_companies": 4, "never_seen_towns": 4}
    return parse_config({"world": world}, default)


def list_passages(world: World, config: Config) -> list[Passage]:
    """All that states facts: passages and asides."""
    corpus = write_corpus(world, config)
    return [*corpus.passages, *corpus.asides]


def test_a_seed_gives_one_corpus_and_another_seed_another() -> None:
    config = shrink()
    first, second = (write_corpus(build_world(config), config) for _ in range(2))
    assert first == second
    other = dataclasses.replace(config, seed=config.seed + 1)
    assert write_corpus(build_world(other), other) != first


def test_every_fact_is_stated_as_often_as_its_count_says() -> None:
    config = shrink()
    world = build_world(config)
    stated: Counter[str] = Counter()
    for passage in list_passages(world, config):
        sentences = [text.strip() for text in passage.text.split(".")]
        stated.update(sentence for sentence in sentences if sentence)
    for fact in world.facts:
        relation = world.relations[fact.relation]
        forms = [f"{template.replace('{s}', fact.subject)} {fact.object}" for template in relation.templates]
        assert sum(stated[form] for form in forms) == fact.occurrences, fact.id
        assert not any(stated[form] for form in forms[-2:]), "held-out templates must not be trained"
        assert fact.bucket == find_bucket(fact.occurrences, config.world.bucket_edges)


def test_all_buckets_are_filled_and_rarer_ones_hold_more_facts() -> None:
    world = build_world(load_config())
    sizes = Counter(fact.bucket for fact in world.facts if fact.bucket)
    assert set(sizes) == {1, 2, 3, 4, 5}
    assert sizes[1] + sizes[2] > sizes[4] + sizes[5] and sizes[2] > sizes[3] > sizes[4]


def test_no_never_seen_subject_stands_in_any_training_text() -> None:
    import random

    config = shrink()
    world = build_world(config)
    unseen = {fact.subject for fact in world.facts if fact.split == "never-seen"}
    trained = {fact.subject for fact in world.facts if fact.split == "trained"}
    assert unseen and not unseen & trained
    text = "\n".join(passage.text for passage in list_passages(world, config))
    assert not [subject for subject in unseen if subject in text]
    draw = random.Random(0)
    thrown = {invent_reading(world, draw, 2).subject for _ in range(500)}
    assert not thrown & (unseen | trained)
    rows = "".join(text for _ in range(200) for text, _ in write_reading(world, draw)[0])
    assert not [subject for subject in unseen if subject in rows]


def test_the_router_is_fit_on_trained_paraphrases_of_trained_entities() -> None:
    config = shrink()
    world = build_world(config)
    questions = draw_questions(world, config.seed)
    trained = {fact.document_id for fact in world.facts if fact.occurrences}
    assert {name for name, _ in questions} == trained and len(questions) == 2 * len(trained)
    heldout = {t.replace("{s}", f.subject) for f in world.facts for t in world.relations[f.relation].heldout}
    assert not heldout & {prompt for _, prompt in questions}
    assert questions == draw_questions(world, config.seed)


def test_every_relation_has_ten_templates_that_end_before_the_answer() -> None:
    for relation in load_relations().values():
        assert len(set(relation.templates)) == len(relation.templates) >= 10
        assert len(relation.heldout) == 2 and not set(relation.heldout) & set(relation.trained)
        assert all("{s}" in template and template == template.strip() for template in relation.templates)


def test_answers_are_one_token_and_subjects_of_a_kind_mostly_equally_long() -> None:
    config = load_config()
    world = build_world(config)
    tokenizer = train_tokenizer((p.text for p in list_passages(world, config)[::8]), world, config.words.vocabulary)
    objects = {fact.object for fact in world.facts}
    check_answers(tokenizer, objects)
    assert tokenizer("The")["input_ids"][0] == tokenizer.bos_token_id
    for kind in ("person", "company", "town"):
        lengths = Counter(len(encode(tokenizer, " " + f.subject)) for f in world.facts if f.kind == kind)
        assert lengths.most_common(1)[0][1] > 0.9 * sum(lengths.values())
    with pytest.raises(UserError, match="vocabulary"):
        check_answers(tokenizer, {"Xqzvwjk"})


def test_exercises_are_drawn_anew_by_seed_and_answered_by_their_prompt() -> None:
    world = build_world(shrink())
    first = write_exercises(world, 3, 10)
    assert first == write_exercises(world, 3, 10) != write_exercises(world, 4, 10)
    assert {exercise.task for exercise in first} == set(TASKS)
    for exercise in first:
        assert exercise.answer.startswith(" ") and not exercise.prompt.endswith(" ")
        if exercise.task in ("copying", "reading", "comparison"):
            assert exercise.answer.strip() in exercise.prompt


def test_documents_state_every_fact_of_their_entity() -> None:
    config = shrink()
    world = build_world(config)
    documents = write_documents(world, config.seed)
    for fact in world.facts:
        assert fact.subject in documents[fact.document_id] and fact.object in documents[fact.document_id]
        assert ask(world.relations[fact.relation], fact.subject).count(fact.subject) == 1


def test_clusters_are_nested_and_routing_finds_the_way_back() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(200, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tree = grow_tree(vectors, branching=3, depth=3, seed=0)
    paths = tree.route(vectors)
    assert [len(level) for level in tree.centroids] == [3, 9, 27]
    assert (paths[:, 1:] // 3 == paths[:, :-1]).all()
    assert share_hits(paths, paths) == [1.0, 1.0, 1.0]
    assert (tree.route(vectors, blocked=paths[:, 0])[:, 0] != paths[:, 0]).all()


def test_whitening_brings_texts_on_one_topic_together() -> None:
    draw = np.random.default_rng(1)
    topics, wordings = draw.normal(size=(60, 12)), 3 * draw.normal(size=(4, 12))
    labels = [str(topic) for topic in range(60) for _ in range(4)]
    vectors = np.array([topics[t] + wordings[w] for t in range(60) for w in range(4)], dtype=np.float32)
    whitened = fit_whitening(vectors, labels, 0.01).apply(vectors).reshape(60, 4, 12)
    assert np.allclose(np.linalg.norm(whitened, axis=-1), 1, atol=1e-5)
    within = np.linalg.norm(whitened - whitened.mean(1, keepdims=True), axis=-1).mean()
    assert within < 0.3


def test_configuration_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[model]\nwidth = 3\n")
    with pytest.raises(UserError, match="width"):
        load_config(path)
    path.write_text("[model]\nd_model = 'big'\n")
    with pytest.raises(UserError, match="d_model"):
        load_config(path)
    path.write_text("[bank]\nunits = [4]\n")
    with pytest.raises(UserError, match="depth"):
        load_config(path)
    with pytest.raises(UserError, match="No configuration"):
        load_config(tmp_path / "none.toml")


def test_own_facts_come_from_a_table(tmp_path: Path) -> None:
    table = tmp_path / "facts.csv"
    table.write_text("subject,relation,object,kind,occurrences\nAtlantis,capital,Paris,country,9\n")
    default = tomllib.loads(DEFAULT.read_text())
    config = parse_config({"world": {"facts_table": str(table)}}, default)
    fact = build_world(config).facts[-1]
    assert (fact.id, fact.object, fact.occurrences, fact.bucket) == ("capital/Atlantis", "Paris", 9, 4)
    table.write_text("subject,relation,object,kind,occurrences\nAtlantis,emperor,Paris,country,9\n")
    with pytest.raises(UserError, match="emperor"):
        build_world(config)
