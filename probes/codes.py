"""Vector quantisation codes: how many bits a key or value of one head becomes, by name; nothing here needs torch.

Yang et al. 2024, appendix B, compress 80 numbers of 2 bytes to 14 bytes by FAISS's composite code
OPQ20x80-Residual2x14-PQ8x10: a rotation (OPQ), the nearest of 2^14 centroids for either half (Residual2x14), and a
product quantiser of 8 pieces with 2^10 centroids each for what is left (PQ8x10); 2 x 14 bits make 4 bytes, 8 x 10 bits
make 10.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import log2

from probes.errors import UserError

PAPER_CODE = "OPQ20x80-Residual2x14-PQ8x10"
PATTERN = re.compile(r"(?:OPQ(\d{1,4})[x_](\d{1,4})[-,])?(?:Residual2x(\d{1,2})[-,])?PQ(\d{1,4})x(\d{1,2})")
# Fewest training vectors a centroid when a code is chosen; fewest at all is one a centroid.
VECTORS_A_CENTROID = 16
MOST_COARSE_BITS, MOST_FINE_BITS = 14, 10


@dataclass(frozen=True, slots=True)
class Code:
    """A code of vectors of `width` numbers.

    `turns` is the number of pieces that the rotation is fitted for (0: no rotation), `coarse` the bits of either half's
    centroid (0: none), `pieces` and `fine` the pieces and bits of the product quantiser.
    """

    width: int
    turns: int
    coarse: int
    pieces: int
    fine: int

    @property
    def name(self) -> str:
        """Name as the paper spells it."""
        return self._spell("x", "-")

    @property
    def factory(self) -> str:
        """The same code as FAISS spells it."""
        return self._spell("_", ",")

    def _spell(self, of: str, then: str) -> str:
        turned = f"OPQ{self.turns}{of}{self.width}{then}" if self.turns else ""
        coarse = f"Residual2x{self.coarse}{then}" if self.coarse else ""
        return f"{turned}{coarse}PQ{self.pieces}x{self.fine}"

    @property
    def coarse_bytes(self) -> int:
        """Bytes of the two halves' centroids."""
        return (2 * self.coarse + 7) // 8

    @property
    def bytes(self) -> int:
        """Bytes of one vector."""
        return self.coarse_bytes + (self.pieces * self.fine + 7) // 8

    @property
    def least(self) -> int:
        """Fewest vectors that it can be trained on: one a centroid."""
        return 1 << max(self.coarse, self.fine)


def read_code(name: str, width: int) -> Code:
    """Code of a name, spelt as in the paper or as FAISS does, for vectors of `width` numbers.

    Raises UserError for another name, or one that does not fit the width.
    """
    found = PATTERN.fullmatch(name.strip())
    if found is None:
        raise UserError(
            f"no code is called {name[:60]!r}: give auto, or one such as {PAPER_CODE} (the first two parts may be "
            "left out)"
        )
    turns, turned, coarse, pieces, fine = (int(part or 0) for part in found.groups())
    if turns and turned != width:
        raise UserError(f"{name} is for vectors of {turned} numbers and this bank's heads have {width}: choose auto")
    for part, count in (("OPQ", turns), ("PQ", pieces), ("Residual2", 2 if coarse else 0)):
        if (count and width % count) or (part == "PQ" and not count):
            raise UserError(f"{name}: {part} cuts {width} numbers into {count} equal pieces, which does not work out")
    if not 1 <= fine <= 16 or coarse > 16:
        raise UserError(f"{name}: choose 1 to 16 bits a centroid")
    return Code(width, turns, coarse, pieces, fine)


def choose_code(width: int, vectors: int) -> Code:
    """The paper's kind of code for other widths, with as many bits as `vectors` training vectors a codebook allow.

    At width 80 and 2^18 vectors it is the paper's. Pieces are as many as divide the width and come nearest to a tenth
    of it. Raises UserError when there are too few vectors for any.
    """
    bits = int(log2(vectors / VECTORS_A_CENTROID)) if vectors >= VECTORS_A_CENTROID else 0
    if bits < 1 or width < 2:
        raise UserError(
            f"{vectors} vectors of {width} numbers a codebook are too few to train any code: write more memories first"
        )
    divisors = [count for count in range(1, width + 1) if width % count == 0]
    pieces = min(divisors, key=lambda count: (abs(count - width / 10), -count))
    turns = max(count for count in divisors if count <= max(1, width // 4))
    coarse = 0 if width % 2 else min(MOST_COARSE_BITS, bits)
    return Code(width, turns, coarse, pieces, min(MOST_FINE_BITS, bits))


def require_vectors(code: Code, vectors: int) -> None:
    """Raise UserError, naming a smaller code, when there are too few vectors to train this one."""
    if vectors >= code.least:
        return
    try:
        instead = f"choose {choose_code(code.width, vectors).name}"
    except UserError:
        instead = "no code is small enough"
    raise UserError(
        f"{code.name} has {code.least} centroids and this bank {vectors} vectors a codebook to train them on: "
        f"{instead}, or write more memories"
    )
