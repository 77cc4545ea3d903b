"""One section of a file read into values; faults are collected and reading continues."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from metamorphosis.config import expressions
from metamorphosis.config.faults import Fault
from metamorphosis.config.ini import Option, Section, is_blank
from metamorphosis.config.keys import Key, nearest


class SectionReader:
    """
    Reads sections by tables of keys.

    :ivar faults: the faults found so far.
    :ivar warnings: allowed values that are probably mistakes.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.warnings: list[str] = []
        # Thousands of topics share a few schedules, which take 0.15 ms each to parse.
        self._known: dict[tuple[object, str], object] = {}

    def fault(self, section: Section, text: str, option: Option | None = None) -> None:
        """Collect a fault of one option, or of the section itself."""
        line, key = (option.line, option.key) if option else (section.line, "")
        self.faults.append(Fault(text, line, section.name, key))

    def check_names(
        self, section: Section, names: Iterable[str], ignored: Collection[str] = ()
    ) -> None:
        """
        Check that every key of the section is one of ``names`` or ``ignored``. Source:
        ``Config.checkConfigKeys``.
        """
        known = list(names)
        for option in section.options.values():
            if option.key in known or option.key in ignored:
                continue
            best = nearest(option.key, [*known, *sorted(ignored)])
            self.fault(section, f"Invalid config key:{option.key},do you mean '{best}'?", option)

    def values(self, section: Section, keys: Iterable[Key]) -> dict[str, Any]:
        """
        The valid values of the keys that are given, by attribute. A blank value counts as missing.
        """
        found: dict[str, Any] = {}
        for key in keys:
            option = section.options.get(key.name)
            if option is not None and not is_blank(option.value):
                self._value(section, key, option, found)
            elif key.required:
                fault = Fault(
                    f"Blank value for {key.name}; this key is required",
                    option.line if option else None,
                    section.name,
                    key.name,
                )
                self.faults.append(fault)
        return found

    def _read(self, key: Key, text: str) -> object:
        """The value of a text; equal texts are evaluated once."""
        known = (key.read, text)
        if known not in self._known:
            self._known[known] = key.read(text)
        return self._known[known]

    def _value(self, section: Section, key: Key, option: Option, found: dict[str, object]) -> None:
        """Read one value into ``found``."""
        try:
            value = self._read(key, option.value)
        except ValueError as error:
            self.fault(section, str(error), option)
            return
        if isinstance(value, int) and (
            (key.low is not None and value < key.low) or (key.high is not None and value > key.high)
        ):
            self.fault(section, f"{key.hint}, found {value}", option)
            return
        if key.read is expressions.int32 and expressions.integer(option.value) != value:
            self.warnings.append(
                f"line {option.line}, [{section.name}] {key.name}: {option.value} does not fit"
                f" 32 bits, {value} is taken as the original does"
            )
        found[key.attribute] = value
