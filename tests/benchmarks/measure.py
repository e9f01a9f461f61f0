"""What a benchmark says: our figure beside a peer's or a limit's, taken in the same run, and the bar that their ratio has to clear."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One line of `docs/performance.md`.

    ratio: what is judged, built so by the benchmark that the table's words say it (ours ÷ peer, or peer's time ÷ ours), or a plain figure where
    the bar is one (MB, ms); None with a bar means that it could not be measured, which counts as missed.
    """

    name: str
    ours: float | None
    peer: float | None = None
    unit: str = ""  # of ours and peer: images/s, s, MB, ms
    ratio: float | None = None
    bar: float | None = None  # none: told, not judged
    aim: float | None = None
    at_most: bool = False  # whether the bar is a ceiling
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the bar is cleared."""
        return self.bar is None or (self.ratio is not None and _clears(self.ratio, self.bar, self.at_most))

    @property
    def aimed(self) -> bool:
        """Whether the aim is reached too."""
        return self.aim is None or (self.ratio is not None and _clears(self.ratio, self.aim, self.at_most))


def _clears(value: float, bar: float, at_most: bool) -> bool:
    return value <= bar if at_most else value >= bar
