"""What was measured leaves as a table, and the patient does not: one row for each number of the node's reports.

Nothing that names a patient is in it, no date of birth, no accession number and no date of the study; UIDs are, since they join the table to the
archive.
"""

from dicom_node.export.measured import COLUMNS, Column, rows_of
from dicom_node.export.table import RESEARCH_USE, Exported, export_measurements, read_table

__all__ = ["COLUMNS", "RESEARCH_USE", "Column", "Exported", "export_measurements", "read_table", "rows_of"]
