"""``python -m sparseconv.compat MODULE_OR_SCRIPT ...``: run a program on these names."""

from __future__ import annotations

from sparseconv.compat.namespaces import main

if __name__ == "__main__":
    main()
