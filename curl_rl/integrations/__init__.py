"""Thin adapters that use encoders and objectives in other libraries, one module per library, imported by name.

Each module needs the library it is named after; the rest of the package needs none of them (see the extras in
setup.cfg).
"""
