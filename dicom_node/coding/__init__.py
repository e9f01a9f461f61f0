"""How pixels are coded in files: decoders, in processes of their own, and coded files made into plain ones."""
