"""What a target is, and all of them by name."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Check = Callable[[bytes], None]
Samples = Callable[[], Sequence[bytes]]

CORPUS = Path(__file__).parent / "corpus"
TARGETS: dict[str, Target] = {}


@dataclass(frozen=True, slots=True)
class Target:
    """`check` fails (by any exception) where bytes break the law that its docstring says.

    `samples` are inputs from which mutation begins, `words` what it puts in.
    """

    name: str
    check: Check
    samples: Samples
    words: tuple[bytes, ...] = field(default=())

    def inputs(self) -> list[bytes]:
        """Return the samples and the kept corpus."""
        kept = sorted((CORPUS / self.name).glob("*"))
        return [*self.samples(), *(path.read_bytes() for path in kept)]


def target(samples: Samples, words: str | Sequence[str | bytes] = ()) -> Callable[[Check], Check]:
    """Make a function a target of its own name. A string of words is split at spaces."""

    def register(check: Check) -> Check:
        listed = words.split() if isinstance(words, str) else words
        split = tuple(word.encode() if isinstance(word, str) else word for word in listed)
        TARGETS[check.__name__] = Target(check.__name__, check, samples, split)
        return check

    return register


def places(data: bytes, most: int = 5) -> list[int]:
    """Return places to cut data at, the same for the same data."""
    dice = random.Random(zlib.crc32(data))
    return [dice.randrange(1 << 16) for _ in range(dice.randint(1, most))]
