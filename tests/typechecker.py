"""The type checker that looks at every call of an algorithm while tests run (jaxtyping asks it)."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

# An int where a float is asked for is fine, as everywhere else in Python.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
