"""The run-time type checker of the tests: beartype, where an int is a float and a float a complex, as in PEP 484."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
