"""Models whose weights are set by hand, so that their circuits are known before anything is measured."""

from collections.abc import Callable, Mapping

from interp.zoo.handset.adder import adder as adder
from interp.zoo.handset.attention import copying as copying
from interp.zoo.handset.attention import duplicates as duplicates
from interp.zoo.handset.attention import induction as induction
from interp.zoo.handset.backup import NAMES as NAMES
from interp.zoo.handset.backup import backup as backup
from interp.zoo.handset.backup import self_repair as self_repair
from interp.zoo.handset.blank import Blank as Blank
from interp.zoo.handset.planted import planted as planted
from interp.zoo.known import Known

HANDSET: Mapping[str, Callable[..., Known]] = {
    "induction": induction, "copying": copying, "duplicates": duplicates, "adder": adder, "planted": planted,
    "backup": self_repair,
}  # fmt: skip
