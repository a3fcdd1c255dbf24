"""What a compiled or exported graph sees instead of sites and rules.

sites: stand-ins. handles: sites as numbers. rules, norm: what runs instead of the autograd rules.
operators, samples, sampling: the custom operators. lazy: loads them when a graph first asks.

Nobody imports this folder but the root of the package, which loads it last: it fills the doors of
:mod:`sparseconv.core.handles`.
"""

from sparseconv.core.handles import DOORS
from sparseconv.tracing.rules import RULES
from sparseconv.tracing.sites import view

DOORS.view = view
DOORS.operators = RULES
