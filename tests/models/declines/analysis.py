"""It declines."""

from dicom_node import Unsuitable


def load(folder, device):
    def analyse(ct):
        raise Unsuitable("The spleen is not in the image.")

    return analyse
