"""Everything that `memory-circuits demo train` makes, in order: corpus, tokenizer, clusters, model, memories, files."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from probes.descriptions import hash_file
from probes.errors import UserError
from workbench.demo.batches import Batches, Encoder, Routed
from workbench.demo.clusters import Tree, embed, grow_tree, share_hits
from workbench.demo.config import Config, load_config
from workbench.demo.corpus import Corpus, ask, draw_readings, write_corpus, write_documents
from workbench.demo.tokenizer import train_tokenizer
from workbench.demo.training import Learner, Progress, train_model
from workbench.demo.whitening import Whitening, fit_whitening
from workbench.demo.world import World, build_world, group_documents
from workbench.storage import discard_folder, make_folder, name_work


@dataclass(frozen=True, slots=True)
class Material:
    """What training starts from: the world as text, its tokenizer, and the tree that routes it.

    `nearby_paths` are those that the router finds for documents whose own subtree of level 1 is blocked. `readings` are
    texts with questions, with the paths that the router finds for them. `plain_tree` is the paper's router, of
    documents alone and without whitening: for comparison alone.
    """

    config: Config
    world: World
    documents: dict[str, str]
    corpus: Corpus
    tokenizer: PreTrainedTokenizerFast
    tree: Tree
    whitening: Whitening
    document_paths: dict[str, NDArray[np.int64]]
    nearby_paths: dict[str, NDArray[np.int64]]
    passage_paths: NDArray[np.int64]
    readings: list[Routed]
    plain_tree: Tree
    plain_hits: list[float]


@dataclass(frozen=True, slots=True)
class Start:
    """Weights of an earlier training by name, and the hash of the anchor's file."""

    anchor: dict[str, Tensor]
    bank: dict[str, Tensor]
    digest: str


def train(
    config_path: Path | None,
    out: Path,
    *,
    start: Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> None:
    """Make the demo model of a configuration in the folder `out`, from nothing or from where it stopped.

    With `start`, the folder of a demo model of the same world and shape: its weights, as they were shipped, go through
    the last two stages of the configuration once more, with a fresh optimiser. Work in progress lives beside `out` in
    `<out>.part` until all is done. Raises `UserError` for a bad configuration, a folder that is in use for something
    else, and a start of another world or shape.
    """
    from workbench.demo.shipping import ship

    config = load_config(config_path)
    earlier = None if start is None else open_start(start, config)
    if out.exists() and any(out.iterdir()) and not (out / "shipped.json").is_file():
        raise UserError(f"{out} holds something that is not a demo model; choose an empty folder.")
    work = name_work(out)
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    make_folder(work)
    torch.set_num_threads(config.training.threads)
    began = time.monotonic()
    material = prepare(config, work / "embeddings.npz", progress)
    digest = None if earlier is None else earlier.digest
    name = "checkpoint" if digest is None else f"checkpoint-{digest[:12]}"
    learner, log = learn(material, work / name, earlier=earlier, resume=resume, progress=progress)
    ship(material, learner, log, out, work, time.monotonic() - began, config_path, digest)
    discard_folder(work)


def prepare(config: Config, cache: Path | None, progress: Progress | None = None) -> Material:
    """Corpus, tokenizer and clusters; the same configuration gives the same ones."""
    report = progress or (lambda _name, _done, _total: None)
    report("corpus", 0, 4)
    world = build_world(config)
    documents, corpus = write_documents(world, config.seed), write_corpus(world, config)
    report("tokenizer", 1, 4)
    texts = [passage.text for passage in (*corpus.passages, *corpus.asides)] + list(documents.values())
    tokenizer = train_tokenizer([*texts, config.corpus.prefix], world, config.words.vocabulary)
    report("embeddings", 2, 4)
    questions = draw_questions(world, config.seed)
    vectors = embed(list(documents.values()), cache)
    asked = embed([prompt for _, prompt in questions], cache)
    drawn = draw_readings(world, config.seed, config.bank.routed_readings)
    read = embed([prompt for _, prompt in drawn], cache)
    report("clusters", 3, 4)
    place = {name: number for number, name in enumerate(documents)}
    homes = [place[name] for name, _ in questions]
    seen = sorted(set(homes))
    labels = [*(list(documents)[number] for number in seen), *(name for name, _ in questions)]
    whitening = fit_whitening(np.concatenate([vectors[seen], asked]), labels, config.clusters.whitening)
    moved = whitening.apply(vectors)
    known = np.concatenate([moved[seen], whitening.apply(asked)])
    tree = grow_tree(known, config.clusters.branching, config.clusters.depth, config.seed)
    plain = grow_tree(vectors[seen], config.clusters.branching, config.clusters.depth, config.seed)
    hits = share_hits(plain.route(asked), plain.route(vectors)[homes])
    report("clusters", 4, 4)
    own = tree.route(moved)
    paths = dict(zip(documents, own, strict=True))
    nearby = dict(zip(documents, tree.route(moved, blocked=own[:, 0]), strict=True))
    routed = np.stack([paths[passage.document_id] for passage in corpus.passages])
    found = tree.route(whitening.apply(read))
    readings = [(segments, path) for (segments, _), path in zip(drawn, found, strict=True)]
    router = (tree, whitening, paths, nearby, routed)
    return Material(config, world, documents, corpus, tokenizer, *router, readings, plain, hits)


def draw_questions(world: World, seed: int, each: int = 2) -> list[tuple[str, str]]:
    """Document and prompt of `each` facts of every trained entity, in trained paraphrases: what the router learns."""
    questions = []
    for name, facts in group_documents(fact for fact in world.facts if fact.occurrences).items():
        draw = random.Random(f"questions/{seed}/{name}")
        for fact in draw.sample(facts, min(each, len(facts))):
            relation = world.relations[fact.relation]
            questions.append((name, ask(relation, fact.subject, draw.randrange(len(relation.trained)))))
    return questions


def make_batches(material: Material) -> Batches:
    """The rows of every step of training on the material."""
    leaves: dict[str, list[NDArray[np.int64]]] = {}
    for name, path in material.document_paths.items():
        leaves.setdefault(name.split("/")[0], []).append(path)
    encoder = Encoder(material.tokenizer)
    nearby = np.stack([material.nearby_paths[passage.document_id] for passage in material.corpus.passages])
    paths, readings = material.passage_paths, material.readings
    return Batches(material.config, material.world, material.corpus, paths, leaves, encoder, readings, nearby)


def start_learner(material: Material) -> Learner:
    """An untrained anchor and bank; on a CUDA device where there is one."""
    tokenizer = material.tokenizer
    ids = tuple(int(token) for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id))
    learner = Learner(material.config, len(tokenizer), (ids[0], ids[1], ids[2]))
    return learner.to("cuda" if torch.cuda.is_available() else "cpu")


def learn(
    material: Material,
    checkpoint: Path,
    *,
    earlier: Start | None = None,
    resume: bool,
    progress: Progress | None = None,
) -> tuple[Learner, list[dict[str, float]]]:
    """Train anchor and bank on the material: from nothing, or from weights that are there, in the last two stages."""
    learner, batches, first = start_learner(material), make_batches(material), 0
    if earlier is not None:
        learner.anchor.load_state_dict(earlier.anchor)
        learner.bank.load_state_dict(earlier.bank)
        first = batches.bank_steps
    log = train_model(material.config, learner, batches, checkpoint, resume=resume, first=first, report=progress)
    return learner.to("cpu").eval(), log


def open_start(folder: Path, config: Config) -> Start:
    """Weights to go on from. Raises `UserError` when they are of another world or shape than the configuration's."""
    from workbench.demo.loading import load_demo

    demo = load_demo(folder)
    for name in ("seed", "world", "words", "clusters", "model"):
        if getattr(demo.config, name) != getattr(config, name):
            raise UserError(f"{folder} was made with another {name}: go on from a demo of the same configuration")
    if demo.config.bank.units != config.bank.units:
        raise UserError(f"{folder} has blocks of {demo.config.bank.units} units, not {config.bank.units}")
    digest = hash_file(folder / "model" / "model.safetensors")
    return Start(demo.model.state_dict(), demo.bank.state_dict(), digest)
