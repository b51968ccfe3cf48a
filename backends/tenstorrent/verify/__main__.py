"""`python -m backends.tenstorrent.verify DIR`."""

import sys

from backends.tenstorrent.verify.command import main

if __name__ == "__main__":
    sys.exit(main())
