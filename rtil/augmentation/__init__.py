"""What the discriminator is shown in place of an image, and how often."""
