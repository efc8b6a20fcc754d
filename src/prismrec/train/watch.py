"""Whether training still learns: a loss that climbs away from its lowest is noticed, long before it is no number.

Takes the loss of each step above that of chance, the log of the number of negatives, which grows as the queue fills;
gives how far it has risen, smoothed, in nats.
"""

from dataclasses import dataclass

SMOOTHED_OVER = 50
"""Steps; the weight of a loss falls to 1/e over so many."""
NOTABLE = 1.0
"""Nats: the likelihood of the positives has fallen to 1/e of its best, which noise of batches does not do."""

SLOWER = "lower train.learning_rate or train.table_learning_rate, or raise loss.temperature"
"""What helps."""


@dataclass
class LossWatch:
    """The loss since training began."""

    smoothed: float = 0.0
    lowest: float = 0.0
    steps: int = 0
    """That were seen."""
    reported: bool = False
    """Somebody was told that it climbs."""

    @property
    def rise(self) -> float:
        """Of the smoothed loss above its lowest."""
        return self.smoothed - self.lowest

    def see(self, loss: float) -> float:
        """Take in the loss of a step; gives the rise that it leaves."""
        self.steps += 1
        # a plain mean at first, or the first loss would weigh as much as all that follow
        self.smoothed += (loss - self.smoothed) / min(self.steps, SMOOTHED_OVER)
        if self.steps == 1 or self.smoothed < self.lowest:
            self.lowest = self.smoothed
        return self.rise
