"""``python -m torture``: see `torture.campaign`, which its child processes can import."""

import os
import sys

from torture.campaign import main

if __name__ == "__main__":
    # A fixed seed also for sets and dicts of strings, in the children too.
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main())
