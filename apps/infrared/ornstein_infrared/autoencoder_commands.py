"""The verbs of `ornstein infrared-autoencoder`. Light on purpose: help pages read this file."""

from ornstein.cli import App

app = App(
    name="infrared-autoencoder",
    summary="Train the autoencoder whose latents infrared pictures are enlarged on.",
    task="ornstein_infrared.autoencoder_task:AutoencoderTask",
    data="ornstein_infrared.autoencoder_data:AutoencoderData",
)
