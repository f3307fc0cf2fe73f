"""What it costs to train a GPT: FLOPs, time, price and memory, with what each figure assumes."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import traitlets

from gptlib import accounting
from gptlib.config import FAMILY, GPTConfig
from gptlib.widgets.architecture_map import family
from gptlib.widgets.base import Widget, one_of
from gptlib.widgets.parameter_breakdown import checked_sizes, name_of, sizes_of

#: How FLOPs are counted: by the rule of thumb, or product by product.
COUNTINGS = ("six_nd", "products")
#: The largest values that the widget takes, as its JavaScript does.
LIMITS: dict[str, float] = {
    "n_tokens": 1e15,
    "n_devices": 1_000_000,
    "flops_per_second": 1e18,
    "utilization": 1,
    "price_per_device_hour": 1e6,
}


class TrainingCost(Widget):
    """What training a GPT takes on given devices, with controls for all that it depends on.

    ``model`` is a name in ``gptlib.config.FAMILY`` or a ``GPTConfig``, ``device`` a name in
    ``gptlib.accounting.DEVICES``. The traits follow what the reader does: ``config`` holds the
    model's sizes, ``run`` everything else: ``n_tokens`` to train on; ``counting``, "six_nd" or
    "products"; ``device`` with its ``flops_per_second``, ``n_devices`` and their ``utilization``;
    ``price_per_device_hour``; ``dtype`` of weights and gradients; and whether all that training
    holds is ``sharded`` over the devices.

    Raises ``ValueError`` for a name that does not exist, and for numbers that are out of range.
    """

    _module = "training_cost"

    config: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    run: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)
    family: traitlets.List[Any] = traitlets.List().tag(sync=True)
    devices: traitlets.List[Any] = traitlets.List().tag(sync=True)

    def __init__(
        self,
        model: str | GPTConfig = "gpt3",
        n_tokens: int = 300_000_000_000,
        device: str = "v100-lambda",
        **run: Any,
    ) -> None:
        if not isinstance(model, GPTConfig):
            model = FAMILY[one_of("model", model, FAMILY)]
        chosen = accounting.DEVICES[one_of("device", device, accounting.DEVICES)]
        speed = {"flops_per_second": chosen.flops_per_second}
        settings = DEFAULTS | {"n_tokens": n_tokens, "device": device} | speed | run
        super().__init__(config=sizes_of(model), run=settings, family=family(), devices=devices())

    @traitlets.validate("config")
    def _check_config(self, proposal: dict[str, Any]) -> dict[str, Any]:
        return checked_sizes(proposal["value"])

    @traitlets.validate("run")
    def _check_run(self, proposal: dict[str, Any]) -> dict[str, Any]:
        return _checked_run(proposal["value"])

    def state(self) -> dict[str, Any]:
        """Return the traits that the page draws; the page adds the family and the devices."""
        return {"config": self.config, "run": self.run}

    def describe(self) -> str:
        """Say in words what training costs, and what the figures rest on."""
        config, run, found = GPTConfig(**self.config), self.run, costs(self.config, self.run)
        device = accounting.DEVICES[run["device"]]
        how = "6 · N · D" if run["counting"] == "six_nd" else "counted product by product"
        held = accounting.format_bytes(int(sum(found["held_bytes"].values())))
        shared = "a share of it all" if run["sharded"] else "a copy of it all"
        return (
            f"What training {name_of(config)} costs: {accounting.total(config):,} parameters, "
            f"{run['n_tokens']:,} tokens. It takes {found['flops']:.3g} FLOPs ({how}). At "
            f"{run['flops_per_second'] / 1e12:g} TFLOP/s, of which {run['utilization']:.0%} are "
            f"used ({device.name}; {device.source}), these are {_figure(found['device_years'])} "
            f"device-years: {_figure(found['days'])} days on {run['n_devices']:,} "
            f"{'device' if run['n_devices'] == 1 else 'devices'}. At "
            f"{run['price_per_device_hour']:g} for a device-hour, an example, that is a price of "
            f"{_figure(found['price'])}. Each device holds {held} of weights, gradients and "
            f"AdamW's state as {run['dtype']}, {shared}."
        )


def _figure(value: float) -> str:
    """Write a number with four digits, and commas: 129907.4 as 129,900."""
    return f"{float(f'{value:.4g}'):,.15g}"


#: All that a run is made of; the price is an example.
DEFAULTS: dict[str, Any] = {
    "n_tokens": 300_000_000_000,
    "counting": "six_nd",
    "device": "v100-lambda",
    "flops_per_second": 28e12,
    "n_devices": 1,
    "utilization": 1.0,
    "price_per_device_hour": 1.0,
    "dtype": "float32",
    "sharded": False,
}


def devices() -> list[dict[str, Any]]:
    """Return the devices by name, in order, with what the widget shows of them."""
    return [{"key": key} | asdict(device) for key, device in accounting.DEVICES.items()]


def costs(sizes: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """Return every figure of the widget, by gptlib.accounting; its JavaScript computes the same."""
    config, n_tokens, n = GPTConfig(**sizes), run["n_tokens"], run["n_devices"]
    counted = accounting.run_flops(config, n_tokens)
    rule = accounting.six_nd_flops(accounting.total(config), n_tokens)
    flops = rule if run["counting"] == "six_nd" else counted
    speed, share = run["flops_per_second"], run["utilization"]
    seconds = accounting.training_seconds(flops, speed, share, n)
    held = accounting.training_bytes(config, run["dtype"])
    return {
        "flops": flops,
        "rule_flops": rule,
        "counted_flops": counted,
        "device_years": accounting.device_years(flops, speed, share),
        "days": seconds / 86_400,
        "price": accounting.training_price(seconds, n, run["price_per_device_hour"]),
        "held_bytes": accounting.sharded_bytes(held, n) if run["sharded"] else held,
    }


def _checked_run(run: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run that the widget can show, numbers in their own types."""
    if set(run) != set(DEFAULTS):
        raise ValueError(f"run must have the settings {', '.join(DEFAULTS)}, not {list(run)!r}")
    one_of("counting", run["counting"], COUNTINGS)
    one_of("device", run["device"], accounting.DEVICES)
    one_of("dtype", run["dtype"], accounting.BYTES)
    if not isinstance(run["sharded"], bool):
        raise ValueError(f"sharded must be True or False, not {run['sharded']!r}")
    whole = {name: _whole(name, run[name]) for name in ("n_tokens", "n_devices")}
    for name in ("flops_per_second", "utilization", "price_per_device_hour"):
        value, least = run[name], "at least 0" if name.startswith("price") else "above 0"
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not good or not 0 <= value < math.inf or (value == 0 and least == "above 0"):
            raise ValueError(f"{name} must be a number {least}, not {value!r}")
    for name, limit in LIMITS.items():
        if run[name] > limit:
            raise ValueError(f"{name} must be at most {limit:,.0f} here, not {run[name]}")
    return {name: run[name] for name in DEFAULTS} | whole


def _whole(name: str, value: Any) -> int:
    """Return a count as an int; JavaScript sends 3e11 as a float now and then."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value < 1 or value != int(value):
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return int(value)
