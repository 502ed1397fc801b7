"""Fuzzing of what reads a stranger's bytes: one target a reader, each with an oracle and with a planted bug.

``python -m fuzz`` (with ``tests/`` in the path) runs them all: under atheris where it has a wheel, with examples from
hypothesis elsewhere. An oracle asks for more than "no crash": refused in a sentence, or understood rightly.
"""
