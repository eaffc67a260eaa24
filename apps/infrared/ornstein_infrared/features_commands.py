"""The verbs of `ornstein infrared-features`. Light on purpose: help pages read this file."""

from ornstein.cli import App

app = App(
    name="infrared-features",
    summary="Train the small encoder that infrared guidance compares features of.",
    task="ornstein_infrared.features_task:FeaturesTask",
    data="ornstein_infrared.autoencoder_data:AutoencoderData",
)
