"""Tools around networks."""

from sparseconv.tools.warmup import warm_up as warm_up
