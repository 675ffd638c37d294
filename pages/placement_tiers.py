"""Tiers of storage: how long a text waits for its blocks, and what a cache in fast memory does, with sliders."""

from __future__ import annotations

import streamlit as st

from probes.errors import UserError
from workbench.costs.blocks import Bank
from workbench.costs.hierarchical import ANCHORS, TIER_RANKS, TIERS
from workbench.costs.tiers import CacheUse, Tier, draw_paths, simulate_cache, time_fetch
from workbench.stored import Blocks
from workbench.views.placement import draw_caches, tabulate_caches
from workbench.views.text import plain

OWN, PAPER = "own", "paper"
NAMES = {OWN: "the shipped bank", PAPER: "the paper's 410M model (inferred)"}
# Shares of the bank at which the curve is computed.
SHARES = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
BRANCHING, DEPTH = 16, 4


def choose_bank(blocks: Blocks | None) -> tuple[list[float], list[int], int, int]:
    """Bytes of a block and clusters of each level; branching, and depth of the tree whose last levels have blocks."""
    names = [OWN, PAPER] if blocks is not None else [PAPER]
    name = st.selectbox(
        "Bank",
        names,
        format_func=NAMES.__getitem__,
        key="tier-bank",
        help="Pouransari et al. 2025 publish times and sizes, not the configuration: ranks, clusters and bandwidths "
        "with which these come out are inferred.",
    )
    if name == OWN and blocks is not None:
        return [float(size) for size in blocks.sizes], list(blocks.clusters), blocks.branching, len(blocks.clusters)
    sizes = [2.0 * size for size in Bank(ANCHORS["410M"], TIER_RANKS).levels]
    return sizes, [BRANCHING**level for level in range(2, DEPTH + 1)], BRANCHING, DEPTH


def choose_tiers(levels: int) -> tuple[list[Tier], Tier]:
    """Bandwidth of each level's tier and of the cache, and one latency."""
    columns = st.columns(levels + 2)
    tiers = []
    latency = columns[-1].slider(
        "Latency, µs", 0, 10_000, 100, step=50, key="latency", help="Of one request to a level's tier."
    )
    for level in range(levels):
        default = TIERS[min(level, len(TIERS) - 1)].bandwidth / 1e9
        bandwidth = columns[level].slider(
            f"Level {level + 1}, GB/s",
            0.05,
            20.0,
            default,
            step=0.05,
            key=f"bandwidth-{level}-{levels}",
            help="Bandwidth of the tier that holds this level's blocks; tiers of equal bandwidth are one, and queue.",
        )
        tiers.append(Tier(f"{bandwidth:g} GB/s", bandwidth * 1e9, latency * 1e-6))
    fast = columns[-2].slider("Cache, GB/s", 1.0, 100.0, 20.0, key="cache-bandwidth", help="Of the fast memory.")
    return tiers, Tier("cache", fast * 1e9, 1e-7)


@st.cache_resource(max_entries=64, show_spinner=False)
def run_caches(
    shape: tuple[int, int, int],
    exponent: float,
    texts: int,
    seed: int,
    sizes: tuple[float, ...],
    tiers: tuple[tuple[float, float], ...],
    fast: tuple[float, float],
    capacities: tuple[float, ...],
) -> list[tuple[tuple[float, ...], float]]:
    """Hits by level and seconds for each capacity; a tier is its bandwidth and latency."""
    branching, depth, levels = shape
    paths = draw_paths(texts, branching, depth, exponent, seed)[:, depth - levels :]
    made = [Tier(f"{bandwidth:g}", bandwidth, latency) for bandwidth, latency in tiers]
    memory = Tier("cache", *fast)
    uses = [simulate_cache(paths, sizes, made, memory, capacity) for capacity in capacities]
    return [(use.hits, use.seconds) for use in uses]


@st.fragment
def simulate_tiers(blocks: Blocks | None) -> None:
    """Sliders, the headline numbers, and the curve over sizes of the cache."""
    sizes, clusters, branching, depth = choose_bank(blocks)
    tiers, fast = choose_tiers(len(sizes))
    first, second, third, fourth = st.columns(4)
    whole = sum(size * count for size, count in zip(sizes, clusters, strict=True))
    share = first.select_slider(
        "Cache, share of the bank", SHARES, 0.03, key="cache-share", help=f"The bank has {whole / 1e6:,.2f} MB."
    )
    exponent = second.slider(
        "Zipf exponent", 0.0, 2.0, 1.0, step=0.1, key="exponent", help="How uneven usage is: 0 is all clusters alike."
    )
    texts = third.number_input("Texts", 1, 20_000, 1000, key="texts", help="n of the simulation.")
    seed = fourth.number_input("Seed", 0, 2**31 - 1, 0, key="tier-seed")
    capacities = sorted({max(one * whole, sum(sizes)) for one in SHARES})
    chosen = max(float(share) * whole, sum(sizes))
    try:
        found = run_caches(
            (branching, depth, len(sizes)),
            exponent,
            int(texts),
            int(seed),
            tuple(sizes),
            tuple((tier.bandwidth, tier.latency) for tier in tiers),
            (fast.bandwidth, fast.latency),
            tuple(capacities),
        )
    except UserError as error:
        st.error(plain(str(error)))
        return
    uses = [CacheUse(*one) for one in found]
    show_results(sizes, tiers, capacities, uses, chosen, int(texts))


def show_results(
    sizes: list[float], tiers: list[Tier], capacities: list[float], uses: list[CacheUse], chosen: float, texts: int
) -> None:
    """Headline numbers, chart and table."""
    use = uses[capacities.index(chosen)]
    with st.container(horizontal=True, gap="medium"):
        st.metric("A text fetches", f"{sum(sizes) / 1e6:,.3f} MB", width="content", help="One block a level.")
        st.metric(
            "Wait without a cache",
            f"{1000 * time_fetch(sizes, tiers):,.3g} ms",
            width="content",
            help="Latency plus bytes over bandwidth; blocks of one tier one after another, tiers side by side.",
        )
        st.metric(
            "Mean wait with the cache",
            f"{1000 * use.seconds:,.3g} ms",
            width="content",
            help=f"Mean of {texts:,} simulated texts; the least recently used block leaves first.",
        )
        st.metric("Cache", f"{chosen / 1e6:,.3f} MB", width="content", help="At least one text's blocks.")
    figure, table = st.tabs(["Chart", "As a table"])
    with figure:
        st.plotly_chart(
            draw_caches(capacities, uses, chosen),
            key="caches",
            config={"displayModeBar": False},
            alt="Share of requests that the cache answers, by level and size of the cache",
        )
    with table:
        st.dataframe(tabulate_caches(capacities, uses), hide_index=True, key="caches-table", alt="Sizes of the cache")
    st.caption(
        f"Simulated, not measured: n = {texts:,} texts whose leaves follow Zipf's law. `memory-circuits bank tiers` "
        "times a bank on this machine."
    )
