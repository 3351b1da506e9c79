"""See work.sh."""

import decimal
import hashlib
import json
import math
import struct
import threading
import zlib

values = [math.sqrt(2), math.pi / 3, 1e-310, -0.0, 1 / 3, 2.0**0.5, 1e16 + 1, 123456789.123456789]
print([repr(v) for v in values], [v.hex() for v in values])
print([round(f(0.7), 14) for f in (math.sin, math.cos, math.exp, math.log, math.tan, math.gamma)])
print(math.fsum([0.1] * 10), 7.0 // -2.0, math.fmod(-7, 3), int(1e22), round(2.5), 10**20 % 97, -7 // 2)
print(hashlib.sha256(str(3**5000).encode()).hexdigest(), pow(3, 10**30, 2**127 - 1), math.isqrt(10**101))
print(decimal.Decimal(2).sqrt(decimal.Context(60)))
data = bytes(n * 131 % 251 for n in range(100000))
for name in ("md5", "sha1", "sha512", "sha3_256", "blake2b", "blake2s"):
    print(name, hashlib.new(name, data).hexdigest())
packed = zlib.compress(data, 9)
print(zlib.crc32(data), zlib.adler32(data), len(packed), hashlib.md5(packed).hexdigest())
print(struct.pack("<dfqHb", 1.1, 1.1, -3, 65535, -1).hex(), struct.unpack(">d", b"@\t!\xfbTD-\x18"))
print(json.dumps({"a": [1.5, None, True, "\u20ac"], "b": {str(n): n / 7 for n in range(20)}}))
total = [0]
lock = threading.Lock()


def add() -> None:
    for n in range(2000):
        with lock:
            total[0] += n


threads = [threading.Thread(target=add) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(total)
try:
    print(1 // 0)
except ZeroDivisionError as error:
    print(error)
