"""Members of the latent family: training samples them, inversion optimises them."""
