"""The ``sparseconv`` command, thin over the library's own functions.

command: which commands there are. info, convert, look, label, train: of point clouds. machine: of
this computer. terminal: tables and progress. completion: for bash.
"""

from sparseconv.cli.command import main as main

__all__ = ["main"]
