"""Sweeps over one setting of an inversion, of the same images: how they are compared, tabulated and drawn.

An experiment that turns one knob says what the knob is called and what is shown of it (`Knob`). One that compares a few named
inversions of the same images asks for functions of several of them (`Sweep.paired`), resampled over the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from torch import Tensor

from ... import pictures as plotting
from ...diagnostics import Diagnosis, Interval, area_sums, bootstrap, diagnose, plain_area
from ...diagnostics.intervals import Pooled
from ...diagnostics.row import PATCH_ROW
from .findings import Claim, Figure, Findings, panel, table_of
from .lab import Lab, Pictures, RoundTrip
from .paired import Array, bootstrapped, capped_psnr, correlations, jackknifed

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, eq=False)
class Sweep(Generic[Key]):
    """One set of images, inverted and sampled back once for each value of a setting.

    Attributes:
        pictures: The images.
        trips: Value -> latents and reconstructions.
        diagnoses: Value -> all diagnostics of them.
    """

    pictures: Pictures
    trips: Mapping[Key, RoundTrip]
    diagnoses: Mapping[Key, Diagnosis]

    @classmethod
    def of(cls, pictures: Pictures, trips: Mapping[Key, RoundTrip], noise: Tensor | None = None) -> Sweep[Key]:
        """Diagnosed; with the noise of the images, also how far the latents are from it."""
        shown = pictures.shown
        diagnoses = {
            key: diagnose(trip.latent, images=shown, reconstruction=trip.reconstruction, noise=noise)
            for key, trip in trips.items()
        }
        return cls(pictures, trips, diagnoses)

    @classmethod
    def inverted(
        cls, lab: Lab, pictures: Pictures, settings: Mapping[Key, tuple[str, str]], steps: int, noise: Tensor | None = None
    ) -> Sweep[Key]:
        """By methods from starts, both as on the command line: value -> (method, start)."""
        return cls.of(pictures, {key: lab.inverted(pictures, *how, steps=steps) for key, how in settings.items()}, noise)

    def __getitem__(self, key: Key) -> Diagnosis:
        return self.diagnoses[key]

    @cached_property
    def _plain(self) -> dict[tuple[str, Key], Pooled]:
        mask = plain_area(self.pictures.shown, next(iter(self.trips.values())).latent)
        sums = {key: area_sums(trip.latent, mask) for key, trip in self.trips.items()}
        names = {"std plain": "std", "lag-1 plain": "lag1"}
        return {(name, key): one.pooled(statistic) for name, statistic in names.items() for key, one in sums.items()}

    @cached_property
    def _correlations(self) -> dict[Key, Array]:
        return {key: correlations(trip.latent) for key, trip in self.trips.items()}

    @cached_property
    def _psnr(self) -> dict[Key, Tensor]:
        return {key: capped_psnr(self.pictures.shown, trip.reconstruction) for key, trip in self.trips.items()}

    @cached_property
    def distances(self) -> dict[Key, Tensor]:
        """Value -> mean of |latent - noise| over the values of each image, [B]; of generated images alone."""
        noise = self.pictures.source
        return {key: (trip.latent - noise).abs().flatten(1).mean(1) for key, trip in self.trips.items()}

    def paired(self, name: str, value: Callable[..., Any], *keys: Key) -> Interval:
        """A function of one diagnostic at several values, with its interval over the same images.

        Args:
            name: `std plain`, `lag-1 plain`, `top-20 patch correlation`, or `PSNR` (at most 60 dB an image).
            value: Of as many numbers as there are keys; linear for the PSNR, which is averaged over images.
            keys: The values of the setting.
        """
        if name == "PSNR":
            return bootstrap(value(*(self._psnr[key] for key in keys)))
        if name == PATCH_ROW:
            return jackknifed([self._correlations[key] for key in keys], value)
        return bootstrapped([self._plain[name, key] for key in keys], value)

    def gain(self, name: str, ours: Key, theirs: Key) -> Interval:
        """Ours less theirs, of a diagnostic that `paired` takes."""
        return self.paired(name, lambda a, b: a - b, ours, theirs)


@dataclass(frozen=True)
class Knob:
    """How a sweep over one number is shown for a set of images.

    Attributes:
        letter: The number's, as in `k = 2`.
        table: Heading of the table.
        file, caption: Of the figure; both are followed by the name of the images.
        columns: Of the table (`columns`).
        panels: Title -> the diagnostics in it (label -> name), and its upright axis.
        log: Which axes of the panels are logarithmic.
    """

    letter: str
    table: str
    file: str
    caption: str
    columns: Mapping[str, str]
    panels: Mapping[str, tuple[Mapping[str, str], str]]
    log: str = ""

    def shown(
        self, setting: str, images: str, diagnoses: Mapping[int, Diagnosis], across: str, claims: Iterable[Claim]
    ) -> Findings:
        """A table, curves over the number with `across` under them, and all numbers."""
        x = {float(value): diagnosis for value, diagnosis in diagnoses.items()}
        panels = [panel(title, across, x, names, up, self.log) for title, (names, up) in self.panels.items()]
        named = {f"{self.letter} = {value}": diagnosis for value, diagnosis in diagnoses.items()}
        return Findings(
            setting,
            {f"{self.table}, {images}": table_of(named, self.columns)},
            (Figure(f"{self.file}-{images}", f"{self.caption}{images}.", plotting.curves(*panels)),),
            tuple(claims),
            {images: {f"{self.letter}={value}": diagnosis.to_dict() for value, diagnosis in diagnoses.items()}},
        )
