"""What a release needs before it serves: the starter models, where there are none. Takes a second; safe to run again."""

import sys

from app.core.settings import get_settings
from app.core.storage import StorageError, open_storage
from app.vision.model import ModelError
from app.vision.settings import VisionSettings
from app.vision.store import install_starter


def main() -> int:
    """Store what is missing; the exit code."""
    settings = get_settings(VisionSettings)
    try:
        stored = install_starter(open_storage(settings.storage))
    except (ModelError, StorageError) as error:
        print(f"the starter models cannot be stored: {error}", file=sys.stderr)
        return 1
    print(f"starter models stored: {', '.join(stored)}" if stored else "all models are there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
