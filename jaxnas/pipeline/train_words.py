"""What is said while a model trains for long."""

import dataclasses
import time

import jax
from rich.console import Console

from arch import ArchitectureConfig
from arch.cost import training_flops
from jaxnas.clock import Clock, clock_words
from jaxnas.data import Dataset
from jaxnas.pipeline.train_plan import Trained, TrainPlan
from jaxnas.report.tables import add_numbers, plain_table
from jaxnas.report.tracking import Tracker
from jaxnas.results.gain import quality
from jaxnas.results.summary import SplitScores
from jaxnas.storage.jsonl import Json
from jaxnas.storage.run_folder import RunFolder
from jaxnas.training.devices import Devices
from jaxnas.training.scoring import WindowSums


class TrainWords:
    """What is said while a model trains."""

    def __init__(
        self,
        console: Console,
        plan: TrainPlan,
        config: ArchitectureConfig,
        clock: Clock,
        tracker: Tracker | None,
        devices: Devices,
    ) -> None:
        self._devices = devices
        self.console, self._plan, self._clock = console, plan, clock
        self._tracker = tracker
        self._flops = training_flops(config, plan.batch, plan.window)
        self._first: tuple[int, float] | None = None
        self._done = self._total = 0

    def begin(self, dataset: Dataset, before: dict[str, WindowSums]) -> None:
        """The corpus, and what the model is worth there."""
        facts, tokens = dataset.statistics, len(dataset.train)
        self._say(
            f"data         {dataset.spec}: {facts['bytes'] / 1e6:.1f} MB in "
            f"{facts['files_kept']} files, {tokens:,} training tokens"
        )
        found = before["validation"].metrics()
        start = "untrained weights" if self._plan.fresh else "its weights"
        has = "" if found is None else f" ({found.bits_per_byte:.3f} bits/byte here)"
        self._say(f"model        {self._plan.model}, from {start}{has}")
        if self._plan.fim:
            share = f"{self._plan.fim:.0%} of the pieces of files"
            self._say(f"rearranged   {share}, to fill in the middle")

    def steps(self, number: int) -> None:
        """How long the training is."""
        tokens = number * self._plan.tokens_a_step
        parts = self._plan.accumulate
        accumulated = f" in {parts} parts" if parts > 1 else ""
        until = "" if self._plan.budget is None else f" (budget {self._plan.budget})"
        hosts = f" of {self._devices.hosts} hosts" if self._devices.hosts > 1 else ""
        self._say(
            f"training     {number:,} steps of {self._plan.batch} x "
            f"{self._plan.window} tokens{accumulated}, {tokens:,} in all{until}, "
            f"on {self._devices.number} x {jax.devices()[0].device_kind}{hosts}"
        )

    def now(self, done: int, total: int) -> None:
        """Steps done, and in all."""
        self._done, self._total = done, total
        if self._first is None:
            self._first = done, time.monotonic()

    def evaluated(self, line: Json) -> None:
        """An evaluation, with the speed since the first call."""
        if self._tracker is not None:
            known = {name: x for name, x in line.items() if x is not None}
            self._tracker("training", known.pop("step"), known)
        loss = "" if line["loss"] is None else f"  loss {line['loss']:.3f}"
        speed = left = ""
        first, began = self._first or (0, 0.0)
        if self._done > first:
            a_step = (time.monotonic() - began) / (self._done - first)
            speed = (
                f"  {self._plan.tokens_a_step / a_step:,.0f} tokens/s  "
                f"{self._flops / a_step / 1e12:.3g} TFLOP/s"
            )
            left = f"  {clock_words(a_step * (self._total - self._done))} left"
        self._say(
            f"step {line['step']:>7,}{loss:12}  validation "
            f"{line['bits_per_byte']:.4f} bits/byte  accuracy "
            f"{line['accuracy']:.4f}{speed}{left}"
        )

    def end(
        self,
        trained: Trained,
        scores: dict[str, SplitScores],
        before: dict[str, WindowSums],
        folder: RunFolder,
    ) -> None:
        """The table of quality, and where the model is."""
        table = plain_table("Next-token quality", "split", "model")
        add_numbers(table, "bits/byte", "accuracy")
        for split, one in scores.items():
            was = before[split].metrics()
            rows = [("token unigram", one["unigram"]), ("token bigram", one["bigram"])]
            if was is not None:
                rows.append(("as it was", quality(dataclasses.asdict(was))))
            for name, found in [*rows, ("trained", one["winner"])]:
                figures = f"{found['bits_per_byte']:.3f}", f"{found['accuracy']:.4f}"
                table.add_row(split, name, *figures)
        self.console.print(table)
        if trained.best_step == 0:
            self._say(
                "warning: the training has not made the model better, and it stays as "
                "it was: more --tokens, or a lower --learning-rate"
            )
        elif trained.best_step < trained.steps:
            self._say(
                f"the best weights were those of step {trained.best_step:,} of "
                f"{trained.steps:,}"
            )
        if scores["test"]["winner"]["bits_per_byte"] > (
            bigram := scores["test"]["bigram"]["bits_per_byte"]
        ):
            self._say(f"warning: the model loses to the token bigram ({bigram:.3f})")
        self._say(f"model       {folder.model}")
        self._say(f"curve       {folder.curve}")

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)
