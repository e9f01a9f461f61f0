"""Write every generated part of the documents anew: `python -m tests.documents`."""

from tests.documents import ROOT, regenerate

for path in regenerate():
    print(f"written: {path.relative_to(ROOT)}")  # noqa: T201
