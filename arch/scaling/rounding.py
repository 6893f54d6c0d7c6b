"""What rounding trained weights to few bits adds to the loss.

delta = C_T D^gamma_D / N^gamma_N e^(b - P / gamma) (Kumar et al. 2024,
arXiv:2411.04330, equation 2): more for a small model, and more for one that has
read much. The constants are those of the paper's table 2, which writes the bias
b into the exponent; they were fitted on GPTQ, on models of 30 M to 220 M
parameters outside the embeddings and 1.5 to 26 billion tokens of Dolma. We round
to nearest in blocks of 32, which the paper found to obey the same form with
other constants.
"""

import math

from arch.cost.sizes import FP16_BYTES, Amount, Count, Storage

SCALE = 0.0598  # C_T
TOKEN_EXPONENT = 0.5068  # gamma_D
PARAMETER_EXPONENT = 0.3439  # gamma_N
BITS = 0.5907  # gamma: this many bits less, and delta is e times as large
BIAS = 1.1277  # b


def rounding_penalty(parameters: Count, tokens: Amount, bits: Amount) -> Amount:
    """Nats a token; numbers or columns.

    Args:
      parameters: outside the embeddings, above 0.
      tokens: trained on.
      bits: of a stored weight, without its block's scale.
    """
    read = tokens**TOKEN_EXPONENT * parameters**-PARAMETER_EXPONENT
    return SCALE * read * math.e ** (BIAS - bits / BITS)


def bits_of(storage: Storage) -> Amount:
    """Bits of one weight, its block's scale left out: 16, 8 or 4."""
    scale = FP16_BYTES * (storage.block > 1)
    return 8 * (storage.block_bytes - scale) / storage.block
