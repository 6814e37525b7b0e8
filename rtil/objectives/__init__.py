"""GAN objectives: per-image losses and the penalties that go with them."""
