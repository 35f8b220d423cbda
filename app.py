"""The page as the app of a hosted Space, which starts this file: `unsample web` for all who come, with a queue.

All that it writes is in a folder beside this file.
"""

import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / ".page"
FOLDER.mkdir(exist_ok=True)
for name in ("TMPDIR", "GRADIO_TEMP_DIR", "MPLCONFIGDIR", "HF_HOME", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"):
    os.environ[name] = str(FOLDER)

import unsample as us  # noqa: E402 (what it loads reads the places above)
from unsample.web import serve  # noqa: E402

HOST, PORT = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), int(os.environ.get("GRADIO_SERVER_PORT", "7860"))

if __name__ == "__main__":
    serve(us.load(), host=HOST, port=PORT, browser=False, ready=lambda address: print(address, flush=True))
