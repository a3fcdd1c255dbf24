"""Files to arrays: `read_points` and the `Points` it returns; one module per format."""

from sparseconv.io.points import Points as Points
from sparseconv.io.read import read_points as read_points

__all__ = ["Points", "read_points"]
