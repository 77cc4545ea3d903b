"""
How fast the broker is, measured beside the original Java broker and beside the least a broker can
do in C.

``python -m benchmarks --help`` lists the options; ``benchmarks/README.md`` explains the method.
"""
