"""The same instances give the same volume, in whatever order they came.

`completeness` says whether a study is whole, by the evidence that `arrival` gathers, and `selection` which of its series a model gets: they
decide without touching a file, and load nothing heavy.
`volume` reads the chosen series' files into one `highdicom.Volume`; it is imported by its own name, by whoever analyses.
"""

from dicom_node.assemble.arrival import gathered
from dicom_node.assemble.completeness import Evidence, Policy, Verdict, judge
from dicom_node.assemble.selection import Selection, select

__all__ = ["Evidence", "Policy", "Selection", "Verdict", "gathered", "judge", "select"]
