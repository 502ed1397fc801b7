"""The torture campaign: every promise of mlxd attacked, each attack with a control that has to be caught.

``python -m torture --tier short`` (with ``tests/`` in the path) runs every row and prints the table; `make torture` and
`make torture-long` are the same. One row is one module of `torture.rows`.
"""
