"""Datasets of any size to their noise and back: shards of parquet files, made by as many workers as there are.

    import unsample as us

    us.dataset.invert("tiny-imagenet-32-v", "photos/", "noise")
    us.dataset.diagnose("noise").table()

What is in which file: `source` lists pictures and reads them, of a file by `rows` and `tar`; `arguments` reads those given;
`plan` says what is to be made; `invert` and `sample` make a shard, `shards` and `store` write it so that it is there or not;
`work` overlaps reading, network and writing; `engines` hand shards to workers, which `running` and `jobs` prepare; `status`,
`diagnose` and `card` say what came out.
"""

from __future__ import annotations

from .diagnose import diagnose
from .status import Status
from .tasks import invert, sample, status

__all__ = ["Status", "diagnose", "invert", "sample", "status"]
