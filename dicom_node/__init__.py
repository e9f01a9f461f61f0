"""What a model's author imports; nothing else here is public.

A model is a folder: `model.toml` says what it accepts and what its outputs mean, `analysis.py` returns `Findings` or raises `Unsuitable`.
"""

from dicom_node.domain import Findings, Mark, Presentation, Unsuitable

__all__ = ["Findings", "Mark", "Presentation", "Unsuitable", "__version__"]
__version__ = "0.1.0"
