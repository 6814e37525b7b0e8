"""Section 5 of the paper: what the lemmas say of linear generators, against simulation.

Modules: `truth` draws the true model and its measurements, `closed_form` holds the lemmas with
measurement noise, `simulation` learns and inverts without knowing them, `table` and `figure` show
both, `setup` composes the settings. Lemmas about given matrices live in rtil.models.linear.
"""
