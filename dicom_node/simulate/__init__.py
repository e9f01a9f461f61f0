"""A hospital in a box: a scanner, a PACS that may be broken in named ways, sample studies, and what a report says to its reader.

`samples` makes the studies, `scanner` sends them, `pacs` receives what the node made of them, `reading` reads it. Each is imported by its own
name, so that whoever needs a scanner does not load the rest.
"""
