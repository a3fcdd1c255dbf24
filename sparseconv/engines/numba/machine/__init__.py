"""Compiler, threads and vector instructions."""
