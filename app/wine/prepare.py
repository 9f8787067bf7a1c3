"""What a release needs before it serves: a model. Does nothing when there is a good one."""

import sys

from app.wine.train import main

if __name__ == "__main__":
    sys.exit(main(["--if-missing"]))
