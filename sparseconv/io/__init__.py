"""Files to arrays and back: `read_points`, `write_points` and `Points`; one module per format.

read, write: from suffix to format. points: what every reader returns. damage: one error for damaged
files. formats: the formats.
"""

from sparseconv.io.points import Points as Points
from sparseconv.io.read import read_points as read_points
from sparseconv.io.write import write_points as write_points

__all__ = ["Points", "read_points", "write_points"]
