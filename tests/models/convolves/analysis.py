"""It lets torch work with several threads, and tells how many."""

import torch

from dicom_node import Findings


def load(folder, device):
    layer = torch.nn.Conv3d(1, 8, 3, padding=1)

    @torch.inference_mode()
    def analyse(ct):
        image = torch.ones(1, 1, 48, 48, 48)
        assert layer(image).shape == (1, 8, 48, 48, 48)
        assert (torch.ones(512, 512) @ torch.ones(512, 512) == 512).all()
        return Findings(measurements={"volume": float(torch.get_num_threads())})

    return analyse
