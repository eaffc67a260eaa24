"""Tiny random networks of diffusers."""

import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel


def unet(width: int = 6) -> UNet2DConditionModel:
    """Stable Diffusion's layout, latents (B, 4, 8, 8), text (B, tokens, width)."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()


def sd3(channels: int = 4, width: int = 6, pooled: int = 5, patches: int = 4) -> SD3Transformer2DModel:
    """Stable Diffusion 3's layout, latents (B, channels, 8, 8), text (B, tokens, width) and pooled text (B, pooled)."""
    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=channels,
        out_channels=channels,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=width,
        caption_projection_dim=8,
        pooled_projection_dim=pooled,
        pos_embed_max_size=patches,
    ).eval()
