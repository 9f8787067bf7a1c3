"""What a release needs before it serves: a model. Unpacks the starter model (a second) when there is no good one.

A starter that does not fit this release's encoder is trained anew (about a minute).
"""

import json
import logging
import sys

from app.core import artefacts, logs
from app.core.encoder import open_encoder
from app.core.settings import get_settings
from app.core.storage import Storage, open_storage
from app.drawings import environment, train
from app.drawings.guard import open_data
from app.drawings.model import ModelError, from_bytes
from app.drawings.settings import DrawingsSettings
from app.drawings.store import ARTEFACT, STARTER, ModelStore, NoModel

log = logging.getLogger(__name__)


def unpack(storage: Storage, encoder: str) -> str:
    """Put the starter model into the storage; its version. Raises ModelError when it does not fit the encoder."""
    data = (STARTER / "model.npz").read_bytes()
    from_bytes(data, encoder=encoder)
    report = json.loads((STARTER / "report.json").read_text(encoding="utf-8"))
    return artefacts.save(storage, ARTEFACT, data, report).id


def main() -> int:
    """See that there is a model; the exit code."""
    settings = get_settings(DrawingsSettings)
    logs.configure(settings=settings)
    try:
        open_data(settings)
    except environment.WrongEnvironment as error:
        log.error("%s", error)  # noqa: TRY400 - the sentence says it all
        return 1
    storage = open_storage(settings.storage)
    encoder = open_encoder("lite0").sha256
    store = ModelStore(storage, encoder)
    store.refresh()
    try:
        log.info("model %s is there", store.current.version)
    except NoModel:
        try:
            log.info("starter model unpacked as %s", unpack(storage, encoder))
        except (OSError, ModelError) as error:
            log.warning("the starter model cannot be used (%s): training one", error)
            return train.main(["--generated"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
