"""What a page shows of a run: which candidates, and what the script knows of them."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

from arch.families import FAMILIES
from jaxnas.evaluation.fitness import OBJECTIVES
from jaxnas.report.page.charts import Dot
from jaxnas.report.page.document import shared_among
from jaxnas.report.page.tags import tag
from jaxnas.report.words import describe
from jaxnas.results.effects import Gene, choice_of, effects
from jaxnas.results.ranking import front_of, top_results
from jaxnas.results.record import Record
from jaxnas.results.result import Scored, scored
from jaxnas.storage.jsonl import Json
from jaxnas.wording import command

MOST = 1500  # candidates drawn, the front and the best among them
BEST = 200  # that are never left out


@dataclasses.dataclass(frozen=True)
class PageView:
    """A run and what is worked out of it once."""

    record: Record
    beside: Sequence[Record] = ()  # other searches, whose hypervolume is drawn too

    @functools.cached_property
    def found(self) -> list[Scored]:
        """All that succeeded in the first phase, in their order."""
        return scored(self.record.results)

    @functools.cached_property
    def front(self) -> set[int]:
        """Ids that no other dominates after the first phase."""
        return set(front_of(self.record.results))

    @functools.cached_property
    def drawn(self) -> list[Scored]:
        """Those that are drawn: all, or the front, the best and an even share.

        The best of the first phase, and of the last one, whose best is the winner.
        """
        if len(self.found) <= MOST:
            return self.found
        winner = None if self.best is None else self.best.id
        ranked = top_results(self.found, BEST)
        ranked += top_results(self.record.last, BEST, winner)
        kept = self.front | {one.id for one in ranked}
        step = -(-len(self.found) // max(1, MOST - len(kept)))
        kept |= {one.id for one in self.found[::step]}
        return [one for one in self.found if one.id in kept]

    @functools.cached_property
    def genes(self) -> list[Gene]:
        """What each choice was worth."""
        return effects(self.record.results)

    @functools.cached_property
    def best(self) -> Scored | None:
        """The winner so far."""
        return self.record.best

    def own(self, one: Scored) -> dict[str, float]:
        """A candidate's values of the user's objectives, by name."""
        names = self.record.objectives
        return dict(zip(names, one.objectives[len(OBJECTIVES) :], strict=True))

    def dots(self, figures: Sequence[tuple[float, float]]) -> Iterator[Dot]:
        """The drawn candidates at these places."""
        for one, (x, y) in zip(self.drawn, figures, strict=True):
            yield Dot(one.id, one.config.arch_type, x, y, self.kind(one.id))

    def kind(self, identity: int) -> str:
        """See `Dot`."""
        if self.best is not None and self.best.id == identity:
            return "winner"
        return "front" if identity in self.front else "behind"

    def link(self, identity: int) -> str:
        """A candidate's number, which opens its card."""
        return tag("a", f"#{identity}", href=f"#c{identity}", data_open=identity)


def data_of(view: PageView) -> Json:
    """What the script knows of the candidates, see `document`."""
    configs = {one.id: one.config.to_dict() for one in view.drawn}
    shared = shared_among(list(configs.values()))
    genes = [gene.name for gene in view.genes]
    later: dict[int, dict[str, float]] = {}
    for result in scored(view.record.later):
        later.setdefault(result.id, {})[str(result.phase)] = result.metrics.accuracy
    candidates: dict[str, Json] = {}
    for one in view.drawn:
        own = {k: v for k, v in configs[one.id].items() if k not in shared}
        candidates[str(one.id)] = {
            "words": describe(one.config),
            "family": FAMILIES.index(one.config.arch_type),
            "figures": _figures(one),
            "config": own,
            "choices": [choice_of(one.config, gene) for gene in genes],
            **({"later": later[one.id]} if one.id in later else {}),
            **({"own": own_values} if (own_values := view.own(one)) else {}),
        }
    return {
        "shared": shared,
        "genes": genes,
        "candidates": candidates,
        "show": command("show", view.record.folder.path, "--id"),
    }


def _figures(one: Scored) -> str:
    metrics, costs = one.metrics, one.costs
    return (
        f"accuracy {metrics.accuracy:.4f}, {metrics.bits_per_byte:.3f} bits/byte\n"
        f"{costs.size_mib:.2f} MiB, {costs.latency_ms:.2f} ms, "
        f"{costs.stored_parameters:,} parameters, generation {one.generation + 1}"
    )
