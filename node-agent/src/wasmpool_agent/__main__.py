"""`python -m wasmpool_agent` is `wasmpool-agent`."""

import sys

from wasmpool_agent.cli import main

if __name__ == "__main__":
    sys.exit(main())
