#!/usr/bin/env python3
"""Writes piecewise_tables.inc: the polynomials of loops_body_piecewise.inc.

On s >= 0 each function is cut into 32 intervals around the multiples of WIDTH, in each of which it
is a polynomial of degree 4 in the distance to the multiple, through the Chebyshev nodes; the last
interval, which stands for all beyond, is 0. Prints the largest error of each, evaluated in double.
Usage: make_piecewise.py > piecewise_tables.inc
"""
import math
import struct
import sys

INTERVALS = 32
WIDTH = 0.25
DEGREE = 4


def tail(s):
    """1 - Phi(s) of the normal distribution."""
    return 0.5 * math.erfc(s / math.sqrt(2))


def gelu_tail_slope(s):
    """1 - (Phi(s) + s phi(s)): 1 - GELU's derivative."""
    return tail(s) - s * math.exp(-s * s / 2) / math.sqrt(2 * math.pi)


def tanh_argument(s):
    return 2 * math.sqrt(2 / math.pi) * (s + 0.044715 * s**3)


def tanh_tail(s):
    """1 - sigmoid(argument): what GELU by tanh multiplies with for negative numbers."""
    return 1 / (1 + math.exp(tanh_argument(s)))


def tanh_tail_slope(s):
    q = tanh_tail(s)
    slope = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * s * s)
    return q - s * q * (1 - q) * slope


def interpolate(f, center):
    """Coefficients in r = s - center, lowest first."""
    half = WIDTH / 2
    nodes = [half * math.cos(math.pi * (2 * i + 1) / (2 * DEGREE + 2)) for i in range(DEGREE + 1)]
    # Newton's divided differences, then expanded.
    table = [f(center + r) for r in nodes]
    for level in range(1, DEGREE + 1):
        for i in range(DEGREE, level - 1, -1):
            table[i] = (table[i] - table[i - 1]) / (nodes[i] - nodes[i - level])
    coefficients = [0.0] * (DEGREE + 1)
    for i in range(DEGREE, -1, -1):
        # p = p * (r - nodes[i]) + table[i]
        shifted = [0.0] + coefficients[:-1]
        coefficients = [a - nodes[i] * b for a, b in zip(shifted, coefficients)]
        coefficients[0] += table[i]
    return coefficients


def as_float(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def literal(value):
    mantissa, exponent = value.hex().split("p")
    return mantissa.rstrip("0").rstrip(".") + "p" + exponent + "f"


def write(name, f):
    rows = [interpolate(f, i * WIDTH) for i in range(INTERVALS - 1)] + [[0.0] * (DEGREE + 1)]
    worst = 0.0
    for step in range(8 * 4096):
        s = step / 4096
        index = min(round(s / WIDTH), INTERVALS - 1)
        r = s - index * WIDTH
        p = 0.0
        for c in reversed(rows[index]):
            p = p * r + as_float(c)
        worst = max(worst, abs(p - f(s)))
    print(f"{name}: {worst:.2g}", file=sys.stderr)
    print(f"// Largest error {worst:.1e}.")
    print(f"constexpr Piecewise {name} = {{{{")
    for power in range(DEGREE + 1):
        numbers = [literal(as_float(row[power])) for row in rows]
        for begin in range(0, INTERVALS, 8):
            opening = "    {" if begin == 0 else "     "
            closing = "}," if begin + 8 == INTERVALS else ","
            print(opening + ", ".join(numbers[begin:begin + 8]) + closing)
    print("}};")


print("// Written by make_piecewise.py.\n// clang-format off")
write("kGeluTail", tail)
write("kGeluTailSlope", gelu_tail_slope)
write("kGeluTanhTail", tanh_tail)
write("kGeluTanhTailSlope", tanh_tail_slope)
print("// clang-format on")
