"""A training run to scrub through: its loss, what it wrote, and where one of its heads looked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import traitlets

from gptlib.widgets.base import Widget

if TYPE_CHECKING:
    from gptlib.replay import Replay

ASSET = "replay.json"
"""What a page loads in place of the mini model's replay, so that no notebook stores it."""


class TrainingReplay(Widget):
    """Scrubs through ``replay``, as :func:`gptlib.replay.build` makes it; None: the mini model's.

    The traits follow what the reader does: ``moment``, ``prompt`` and ``token`` count from 0;
    ``token`` is the one whose attention is shown.

    Raises ``ValueError`` for what is no replay, and for a moment, a prompt or a token that it does
    not have, naming those that it has.
    """

    _module = "training_replay"

    replay: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    moment = traitlets.Int(0).tag(sync=True)
    prompt = traitlets.Int(0).tag(sync=True)
    token = traitlets.Int(0).tag(sync=True)

    def __init__(self, replay: Replay | None = None, prompt: int = 0) -> None:
        from gptlib import replay as replays  # here, so that a page is built without torch

        self._mini = replay is None
        shown = replays.mini() if replay is None else replays.check(replay)
        super().__init__(replay=dict(shown), token=shown["fragment"]["query"], prompt=prompt)

    @traitlets.validate("replay")
    def _check_replay(self, proposal: dict[str, Any]) -> dict[str, Any]:
        from gptlib import replay as replays

        return dict(replays.check(proposal["value"]))

    @traitlets.observe("replay")
    def _begin_anew(self, change: dict[str, Any]) -> None:
        if change["old"]:  # another replay is given to a widget that stands
            self._mini = False
            with self.hold_sync():
                self.moment = self.prompt = 0
                self.token = self.replay["fragment"]["query"]

    @traitlets.validate("moment", "prompt", "token")
    def _check_index(self, proposal: dict[str, Any]) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        parts = {"token": self.replay["fragment"]["tokens"]}.get(name) or self.replay[name + "s"]
        if not 0 <= value < len(parts):
            raise ValueError(f"{name} must be from 0 to {len(parts) - 1}, not {value}")
        return int(value)

    def state(self) -> dict[str, Any]:
        """Return the replay, or the name of the file that has the mini model's, and the choices."""
        shown = {"$asset": ASSET} if self._mini else self.replay
        return {"replay": shown, **{n: getattr(self, n) for n in ("moment", "prompt", "token")}}

    def describe(self) -> str:
        """Say in words what the replay shows, from its first moment to its last."""
        moments, floor = self.replay["moments"], self.replay["floor"]
        first, last = moments[0], moments[-1]
        head = self.replay["head"]
        return (
            f"Replay of a training run at {len(moments)} moments, from step {first['step']:,} to "
            f"step {last['step']:,}. The loss on held-out stories goes from "
            f"{first['held_out']:.2f} to {last['held_out']:.3f} nats per token, above a floor of "
            f"{floor:.3f}; the perplexity from {math.exp(first['held_out']):,.0f} to "
            f"{math.exp(last['held_out']):.2f}. Of {len(last['samples'])} samples, "
            f"{_stories(first)} follow the grammar at the first moment and {_stories(last)} at the "
            f"last. Right before a name, head {head['head']} of layer {head['layer']} gives "
            f"{first['score']:.2f} of its attention to where this name stood before and "
            f"{first['others']:.2f} to other names at the first moment, {last['score']:.2f} and "
            f"{last['others']:.2f} at the last."
        )


def _stories(moment: dict[str, Any]) -> int:
    return sum(sample["parses"] for sample in moment["samples"])
