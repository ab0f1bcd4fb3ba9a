"""The image encoder of Stable Diffusion's autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from nemo_mmseg.models.converters.stable_diffusion_weights import load_stable_diffusion
from nemo_mmseg.models.utils.diffusion import import_diffusers

# Pixels of an image between two positions of the coarsest map of a UNet on these latents.
STRIDE = 64


@MODELS.register_module()
class VAEEncoder(BaseModule):
    """Encoder that turns images into the latents that a diffusion model works on.

    It is diffusers' ``AutoencoderKL`` without decoder. The latents are the mean of the posterior,
    and are not multiplied by Stable Diffusion's scale factor, as VPD publishes it. They do not
    depend on the text: an image is encoded once for all its expressions.

    Rombach et al., *High-resolution image synthesis with latent diffusion models*, 2022.

    Args:
        block_channels: Channels of the levels, each of half the size of the one before. Defaults to
            Stable Diffusion's.
        layers_per_block: ResNet blocks of a level.
        frozen: Parts that are not trained, by their names in diffusers' ``AutoencoderKL``. Defaults
            to all.
        image_size: Height and width of the images, to find out that they do not fit when the
            network is built and not when it is run; None: any.
        pretrained: Stable Diffusion's weights, which ``init_weights`` loads, see
            :func:`~nemo_mmseg.models.converters.stable_diffusion_weights.load_stable_diffusion`;
            None for random ones.
        init_cfg: As in MMEngine.

    Raises:
        ImportError: diffusers is not installed.
        AttributeError: There is no part of a name in ``frozen``.
        ValueError: 64 does not divide ``image_size``.
    """

    takes_text = False

    def __init__(
        self,
        block_channels: Sequence[int] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        frozen: Sequence[str] = ('encoder', 'quant_conv'),
        image_size: Sequence[int] | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if image_size is not None:
            check_size('image_size', image_size)
        self.pretrained = pretrained
        self.vae = import_diffusers('VAEEncoder').AutoencoderKL(
            block_out_channels=tuple(block_channels),
            down_block_types=('DownEncoderBlock2D',) * len(block_channels),
            up_block_types=('UpDecoderBlock2D',) * len(block_channels),
            layers_per_block=layers_per_block,
        )
        del self.vae.decoder, self.vae.post_quant_conv
        for name in frozen:
            self.vae.get_submodule(name).requires_grad_(False)

    def init_weights(self) -> None:
        """Load the pretrained weights, if any."""
        super().init_weights()
        if self.pretrained is not None:
            load_stable_diffusion(self.vae, 'vae', self.pretrained)

    def forward(self, inputs: Tensor) -> Tensor:
        """Encode images.

        Args:
            inputs: ``(B, 3, H, W)``, from -1 to 1.

        Returns:
            Latents ``(B, 4, H / 8, W / 8)``.

        Raises:
            ValueError: 64 does not divide H and W.
        """
        check_size('an image of', inputs.shape[-2:])
        return self.vae.encode(inputs).latent_dist.mode()


def check_size(what: str, size: Sequence[int]) -> None:
    """Refuse images whose latents cannot be halved three times.

    diffusers would resize the maps of its UNet where the published network has none.
    """
    if any(side < STRIDE or side % STRIDE for side in size):
        shown = 'x'.join(map(str, size))
        raise ValueError(
            f'VAEEncoder: {what} {shown} is not admitted; height and width must be multiples of '
            f'{STRIDE}, e.g. 512x512'
        )
