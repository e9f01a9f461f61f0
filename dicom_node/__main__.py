"""`python -m dicom_node` is the command `dicom-node`."""

from dicom_node.cli import main

if __name__ == "__main__":
    main()
