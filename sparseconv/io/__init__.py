"""Files to arrays and back: `read_points`, `write_points` and `Points`; one module per format.

read, write: from suffix to format. points: what every reader returns. source: paths, open files and
bytes. table: what a file holds before it is read. fields: from columns to points. labels: files of
labels. records: rows behind a header. numbers, loops: text to numbers, compiled where it is large.
damage: one error for damaged files. formats: the formats.
"""

from sparseconv.io.points import Points as Points
from sparseconv.io.points import join_points as join_points
from sparseconv.io.read import Scan as Scan
from sparseconv.io.read import iter_points as iter_points
from sparseconv.io.read import read_points as read_points
from sparseconv.io.read import scan as scan
from sparseconv.io.write import write_points as write_points

__all__ = ["Points", "Scan", "iter_points", "join_points", "read_points", "scan", "write_points"]
