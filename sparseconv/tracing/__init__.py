"""What a compiled or exported graph sees instead of sites and rules.

sites: stand-ins. handles: sites as numbers. rules, norm: what runs instead of the autograd rules.
operators, building, samples, sampling: the custom operators, which a program that was saved in
another process finds as soon as the package is loaded. names: their names. observed: rules as
operators, for profilers and tracers.

Nobody imports this folder but the root of the package, which loads it last: it fills the doors of
:mod:`sparseconv.core.handles`.
"""

from sparseconv.core.handles import DOORS
from sparseconv.tracing import building, operators, samples, sampling
from sparseconv.tracing.rules import RULES
from sparseconv.tracing.sites import view

OPERATORS = (building, operators, samples, sampling)  # importing them registers operators
DOORS.view = view
DOORS.operators = RULES
