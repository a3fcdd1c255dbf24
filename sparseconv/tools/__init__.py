"""Tools around networks."""

from sparseconv.tools.optimize import optimize as optimize
from sparseconv.tools.receptive_field import ReceptiveField as ReceptiveField
from sparseconv.tools.receptive_field import receptive_field as receptive_field
from sparseconv.tools.submanifold import submanifold as submanifold
from sparseconv.tools.summary import Summary as Summary
from sparseconv.tools.summary import SummaryRow as SummaryRow
from sparseconv.tools.summary import summary as summary
from sparseconv.tools.warmup import warm_up as warm_up
