"""Modules that need Gradio are not searched for examples where it is missing."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("gradio") else ["src/unsample/web/actions.py", "src/unsample/web/page.py"]
