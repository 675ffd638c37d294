"""Everything that `memory-circuits demo train` makes, in order: corpus, tokenizer, clusters, model, memories, files."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from probes.errors import UserError
from workbench.demo.batches import Batches, Encoder
from workbench.demo.clusters import Tree, Vectors, embed, grow_tree
from workbench.demo.config import Config, load_config
from workbench.demo.corpus import Passage, ask, write_documents, write_passages
from workbench.demo.tokenizer import train_tokenizer
from workbench.demo.training import Learner, Progress, train_model
from workbench.demo.whitening import Whitening, fit_whitening
from workbench.demo.world import World, build_world, group_documents


@dataclass(frozen=True, slots=True)
class Material:
    """What training starts from: the world as text, its tokenizer, and the tree that routes it."""

    config: Config
    world: World
    documents: dict[str, str]
    passages: list[Passage]
    tokenizer: PreTrainedTokenizerFast
    tree: Tree
    whitening: Whitening
    document_paths: dict[str, NDArray[np.int64]]
    passage_paths: NDArray[np.int64]
    plain_hits: list[float]


def train(config_path: Path | None, out: Path, *, resume: bool = True, progress: Progress | None = None) -> None:
    """Make the demo model of a configuration in the folder `out`, from nothing or from where it stopped.

    Work in progress lives beside it in `<out>.part` until all is done. Raises `UserError` for a bad configuration or a
    folder that is in use for something else.
    """
    from workbench.demo.shipping import ship

    config = load_config(config_path)
    if out.exists() and any(out.iterdir()) and not (out / "shipped.json").is_file():
        raise UserError(f"{out} holds something that is not a demo model; choose an empty folder.")
    work = out.with_name(out.name + ".part")
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.training.threads)
    began = time.monotonic()
    material = prepare(config, work / "embeddings.npz", progress)
    learner, log = learn(material, work / "checkpoint", resume=resume, progress=progress)
    ship(material, learner, log, out, work, time.monotonic() - began, config_path)
    shutil.rmtree(work)


def prepare(config: Config, cache: Path | None, progress: Progress | None = None) -> Material:
    """Corpus, tokenizer and clusters; the same configuration gives the same ones."""
    report = progress or (lambda _name, _done, _total: None)
    report("corpus", 0, 4)
    world = build_world(config)
    documents, passages = write_documents(world, config.seed), write_passages(world, config)
    report("tokenizer", 1, 4)
    texts = [passage.text for passage in passages] + list(documents.values())
    tokenizer = train_tokenizer([*texts, config.corpus.prefix], world, config.words.vocabulary)
    report("embeddings", 2, 4)
    trained = {name for name, facts in group_documents(world.facts).items() if facts[0].occurrences}
    vectors = embed(list(documents.values()), cache)
    topics = embed([passage.topic for passage in passages], cache)
    prompts = [fact for fact in world.facts if fact.document_id in trained]
    asked = embed([ask(world.relations[fact.relation], fact.subject) for fact in prompts], cache)
    report("clusters", 3, 4)
    place = {name: number for number, name in enumerate(documents)}
    seen = [number for name, number in place.items() if name in trained]
    labels = [passage.document_id for passage in passages] + [fact.document_id for fact in prompts]
    whitening = fit_whitening(np.concatenate([topics, asked]), labels, config.clusters.whitening)
    moved = whitening.apply(vectors)
    known = np.concatenate([moved[seen], whitening.apply(asked)])
    tree = grow_tree(known, config.clusters.branching, config.clusters.depth, config.seed)
    hits = measure_plain_hits(config, vectors, asked, seen, [place[fact.document_id] for fact in prompts])
    report("clusters", 4, 4)
    return Material(
        config, world, documents, passages, tokenizer, tree, whitening,
        dict(zip(documents, tree.route(moved), strict=True)), tree.route(whitening.apply(topics)), hits,
    )  # fmt: skip


def measure_plain_hits(
    config: Config, vectors: Vectors, asked: Vectors, seen: list[int], homes: list[int]
) -> list[float]:
    """Hit rate a level of bare prompts with the paper's plain router, for comparison."""
    plain = grow_tree(vectors[seen], config.clusters.branching, config.clusters.depth, config.seed)
    return [float(hit) for hit in (plain.route(asked) == plain.route(vectors)[homes]).mean(0)]


def make_batches(material: Material) -> Batches:
    """The rows of every step of training on the material."""
    leaves: dict[str, list[NDArray[np.int64]]] = {}
    for name, path in material.document_paths.items():
        leaves.setdefault(name.split("/")[0], []).append(path)
    encoder = Encoder(material.tokenizer)
    return Batches(material.config, material.world, material.passages, material.passage_paths, leaves, encoder)


def start_learner(material: Material) -> Learner:
    """An untrained anchor and bank; on a CUDA device where there is one."""
    tokenizer = material.tokenizer
    ids = tuple(int(token) for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id))
    learner = Learner(material.config, len(tokenizer), (ids[0], ids[1], ids[2]))
    return learner.to("cuda" if torch.cuda.is_available() else "cpu")


def learn(
    material: Material, checkpoint: Path, *, resume: bool, progress: Progress | None = None
) -> tuple[Learner, list[dict[str, float]]]:
    """Train anchor and bank on the material."""
    learner = start_learner(material)
    log = train_model(material.config, learner, make_batches(material), checkpoint, resume=resume, report=progress)
    return learner.to("cpu").eval(), log
