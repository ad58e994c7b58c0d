"""`python -m sasrec_utils`, which is the same as `sasrec`: the command line, see `sasrec_utils.cli`."""

import sys

from sasrec_utils.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
