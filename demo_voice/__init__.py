"""Makes the demo voice: a tiny Chatterbox, trained from nothing on what espeak-ng speaks. `make demo-voice`.

Not part of the package, and imported by none of it. `recipe` holds every number, `stages` what follows what; each stage
is a function of its own file.
"""
