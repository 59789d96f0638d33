"""RSA keys that are the same in every run: the same seed has to tell the same story.

They come from a small generator with fixed seeds, and protect nothing.
"""

import random
from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa

KEYS = 6
_EXPONENT = 65_537
_SMALL = [number for number in range(3, 2000, 2) if all(number % each for each in range(3, number, 2))]


@cache
def rsa_key(number: int) -> rsa.RSAPrivateKey:
    """RSA-2048; half a second for a new one, nothing for the same again."""
    source = random.Random(number)
    p, q = sorted((_prime(source), _prime(source)), reverse=True)
    d = pow(_EXPONENT, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(_EXPONENT, p * q)
    parts = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, *parts, public).private_key(unsafe_skip_rsa_key_validation=True)


def _prime(source: random.Random) -> int:
    while True:
        number = source.getrandbits(1024) | 1 | 3 << 1022
        if all(number % each for each in _SMALL) and number % _EXPONENT != 1 and _is_prime(number, source):
            return number


def _is_prime(number: int, source: random.Random) -> bool:
    """Miller and Rabin, with eight random bases."""
    twos = ((number - 1) & -(number - 1)).bit_length() - 1
    odd = (number - 1) >> twos
    for _ in range(8):
        power = pow(source.randrange(2, number - 1), odd, number)
        if power in {1, number - 1}:
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True
