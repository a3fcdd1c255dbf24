"""Sites with room to spare: what stands for the sites of any scan in a captured graph.

A graph knows no sites, only the layouts of maps in memory of one size. So the forward that is
captured runs on a set that has as many rows as there is room for, and whose maps are filled with
those of one real set after the other.
"""

from __future__ import annotations

import itertools
import math
import weakref
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from sparseconv.core.geometry import Geometry
from sparseconv.core.handles import next_number
from sparseconv.core.index import Index
from sparseconv.core.rulebook import Rulebook
from sparseconv.engines.torch.capacity import DENSITY_HEADROOM, RoomyRulebook, Uncapturable
from sparseconv.sites.samples import Samples
from sparseconv.sites.sites import Sites


class _Nowhere:
    """The packing of sites that lie nowhere."""

    def __getattr__(self, name: str) -> Any:
        """Refuse to say where sites lie."""
        raise Uncapturable("a layer reads where sites lie, or which sample they are of")


class _AllRows(Samples):
    """All rows as one sample: what holds for each of them, and no sum over them."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.__dict__.update(order=None, sample_of_row=None, device=device, num_rows=rows)

    @property
    def numbers(self) -> Any:
        """Refuse: rows behind the last site would count."""
        raise Uncapturable("a layer works across all sites")


class Step(NamedTuple):
    """One map of a forward.

    Attributes:
        source: the sites that the layer reads.
        inverse: whether it leads back.
        geometry: of the layer.
        like: the output sites that the forward names, None for those of the site law.
    """

    source: Sites
    inverse: bool
    geometry: Geometry
    like: Sites | None

    def follow(self, real: dict[Sites, Sites]) -> tuple[Sites, Rulebook]:
        """Return the output sites and the map of real sites."""
        source = real[self.source]
        like = None if self.like is None else real[self.like]
        lead = source.inverse if self.inverse else source.convolve
        return lead(self.geometry, like)


@dataclass
class Rooms:
    """All sets and maps of a captured forward, and the real ones that fill them now.

    Attributes:
        ratio: room for rows, over the rows of the example.
        real: the real sites that each set stands for.
        maps: by step, in the order in which the forward asked: target and map.
        complete: whether the forward has shown all maps.
    """

    ratio: float
    real: dict[Sites, Sites] = field(default_factory=dict)
    maps: dict[Step, tuple[Sites, RoomyRulebook]] = field(default_factory=dict)
    complete: bool = False

    def way(self, step: Step) -> tuple[Sites, RoomyRulebook]:
        """Return target and map of a step, made when the forward first asks."""
        found = self.maps.get(step)
        if found is None:
            if self.complete:
                raise Uncapturable("the forward takes other layers from call to call")
            sites, rulebook = step.follow(self.real)
            target = self.standing_for(sites)
            counts = step.source.num_sites, target.num_sites
            found = self.maps[step] = target, RoomyRulebook(rulebook, *counts)
        return found

    def standing_for(self, sites: Sites) -> Sites:
        """Return what stands for real sites, with room for a number of rows that no other has."""
        for roomy, real in self.real.items():
            if real is sites:
                return roomy
        least = math.ceil(sites.num_sites * self.ratio * DENSITY_HEADROOM) + 1
        taken = {roomy.num_sites for roomy in self.real}
        return self.add(sites, next(n for n in itertools.count(least) if n not in taken))

    def add(self, sites: Sites, rows: int) -> RoomySites:
        """Return what stands for real sites with room for so many rows."""
        roomy = RoomySites(sites, rows, self)
        self.real[roomy] = sites
        return roomy

    def fill(self, root: Sites, sites: Sites) -> None:
        """Let other real sites, and the maps that lead on from them, take the place of the first.

        Raises:
            Uncapturable: there is no room for them.
        """
        real: dict[Sites, Sites] = {root: sites}
        self.real = {}  # of no use while maps of two scans are mixed
        for step, (target, rulebook) in self.maps.items():
            reached, book = step.follow(real)
            if real.setdefault(target, reached) is not reached:
                raise Uncapturable("layers that met on the example's sites do not meet on others'")
            if reached.num_sites >= target.num_sites:
                raise Uncapturable(
                    f"a layer reaches {reached.num_sites} sites, with room for "
                    f"{target.num_sites - 1}"
                )
            rulebook.fill(book)
        self.real = real


class RoomySites(Sites):
    """Sites that stand for any real ones: they have rows and maps, and lie nowhere.

    Args:
        sites: the example's.
        rows: how many rows there are, one of them at least behind those of every real set.
        rooms: the sets that this is one of.
    """

    def __init__(self, sites: Sites, rows: int, rooms: Rooms) -> None:
        keys = sites.index.keys.new_zeros(1).expand(rows)
        nowhere: Any = _Nowhere()
        index = Index(keys, None, nowhere)
        super().__init__(replace(sites.record, index=index, parents=(), number=next_number()))
        self._rooms = weakref.ref(rooms)  # which holds these sites

    def resolve(self) -> Sites:
        """Return the sites: they are what stands for real ones."""
        return self

    @property
    def samples(self) -> Any:
        """Refuse: rows of samples differ in number."""
        raise Uncapturable("a layer works sample by sample")

    @property
    def whole_batch(self) -> Samples:
        """All rows as one sample, of which nobody may ask how many there are."""
        return _AllRows(self.num_sites, self.device)

    def convolve(self, geometry: Geometry, like: Sites | None = None) -> tuple[Sites, Rulebook]:
        """Return the output sites of a layer and its map."""
        return self._way(False, geometry, like)

    def inverse(self, geometry: Geometry, like: Sites | None = None) -> tuple[Sites, Rulebook]:
        """Return the sites that a layer led here from, and the way back."""
        return self._way(True, geometry, like)

    def _way(self, inverse: bool, geometry: Geometry, like: Sites | None) -> tuple[Sites, Rulebook]:
        rooms = self._rooms()
        if rooms is None or not (like is None or isinstance(like, RoomySites)):
            raise Uncapturable("like= names sites that are not made of the input's")
        return rooms.way(Step(self, inverse, geometry, like))
