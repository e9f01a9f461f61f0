"""Building blocks that more than one model stands on: what a library's call still needs around it to be a method.

Arrays in, arrays out, lengths in millimetres: a method knows no DICOM object, no file and no room. A model imports the module it needs by name,
so that none loads a library it does not use; where one library call does, the model makes it by itself.
"""
