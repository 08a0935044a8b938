"""What critiques still to come may do, given those that were drawn: a Dirichlet posterior, computed exactly. Numpy only.

What a critique puts between the leader and a rival is a whole number d in [-w, w]. Critiques are taken as draws from one unknown
distribution on these, whose prior is a Dirichlet process of weight 2 `PRIOR`: half of it on w, a critique wholly for the leader,
half on -w, one wholly for the rival. Where critiques only ever say w or -w that is Jeffreys' prior for a coin. So d has the weight
a_d = (how often it was seen) + `PRIOR` at d = w and -w, and those to come follow Polya's urn: each is drawn by the weights, and
adds one to its own.

The sum of r draws has the generating function, with x marking the sum and y the draws (rising factorials over factorials are
binomial series),

    G(x, y) = prod_d (1 - y x^d)^(-a_d),        P(sum = s) = [x^s y^r] G / [y^r] G(1, y)

and y dG/dy = G sum_m p_m y^m with p_m = sum_d a_d x^(d m), so that its coefficients in y follow one another:

    c g_c = sum_{m = 1..c} p_m g_{c - m},        g_0 = 1.

With x at roots of unity all sums are had at once, by one Fourier transform.
"""

import numpy as np

PRIOR = 0.5
_FINEST = 20_000  # steps in w r, to bound memory where a vote has fine shares of a point


def chance_ahead(apart: np.ndarray, most: int, left: int) -> float:
    """Returns the probability that the leader is ahead of a rival once `left` more critiques are drawn; level is not ahead.

    Args:
        apart: int [j], what each critique drawn puts between the two.
        most: w.
        left: r.
    """
    step = -(-most * left // _FINEST)
    apart, most = (apart // step).astype(np.int64), -(-most // step)  # what a coarser grid rounds off is the rival's
    lead, sums = int(apart.sum()), 2 * most * left + 1
    values, weights = np.unique(np.append(apart, [-most, most]), return_counts=True)
    weights = weights - (1 - PRIOR) * (np.abs(values) == most)
    root = np.exp(-2j * np.pi * np.outer(values, np.arange(sums // 2 + 1)) / sums)  # x^d [values, frequencies]
    powers = np.empty((left, root.shape[1]), complex)
    series = np.ones((left + 1, root.shape[1]), complex)
    power = np.ones_like(root)
    for c in range(1, left + 1):
        power *= root
        powers[c - 1] = weights @ power
        series[c] = np.einsum("mf,mf->f", powers[:c], series[c - 1 :: -1]) / c
    chances = np.fft.irfft(series[left] / series[left, 0].real, sums)  # of sums 0, 1, ..., w r, -w r, ..., -1
    total = np.fft.fftfreq(sums, 1 / sums).round().astype(np.int64)
    return float(np.clip(chances[total + lead > 0].sum(), 0.0, 1.0))
