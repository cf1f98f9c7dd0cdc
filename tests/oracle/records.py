"""Record batches: built by hand, so that they can be wrong in one place at a time, and read back into fields."""

import struct


def _table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = _table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def varint(value):
    value, out = value << 1 ^ value >> 63, bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def nullable(data):
    return varint(-1) if data is None else varint(len(data)) + data


def record(index, value, key=None, timestamp_delta=0, headers=()):
    body = b"\0" + varint(timestamp_delta) + varint(index) + nullable(key) + nullable(value) + varint(len(headers))
    for name, content in headers:
        body += nullable(name) + nullable(content)
    return varint(len(body)) + body


def batch(values, timestamp, base_offset=0, magic=2, attributes=0, producer=-1, epoch=-1, sequence=-1, key=None,
          deltas=None, **wrong):
    """A batch of these values. `wrong` overrides single fields: count, last_offset_delta, crc, length, max_timestamp, body."""
    deltas = deltas or [0] * len(values)
    body = wrong.get("body")
    if body is None:
        body = b"".join(record(i, value, key, deltas[i]) for i, value in enumerate(values))
    count = len(values)
    summed = struct.pack(
        ">hiqqqhii", attributes, wrong.get("last_offset_delta", count - 1), timestamp,
        wrong.get("max_timestamp", timestamp + max(deltas, default=0)), producer, epoch, sequence,
        wrong.get("count", count)) + body
    crc = wrong.get("crc", crc32c(summed))
    head = struct.pack(">qiibI", base_offset, wrong.get("length", len(summed) + 9), -1, magic, crc)
    return head + summed


def read(data):
    """What lies in a fetch answer: fields of whole batches, then the length of a cut one, if any."""
    found, position = [], 0
    while len(data) - position >= 61:
        base, length, epoch, magic, crc = struct.unpack_from(">qiibI", data, position)
        end = position + 12 + length
        if length < 49 or end > len(data):
            break
        summed = data[position + 21:end]
        attributes, last, first_time, max_time, producer, producer_epoch, sequence, count = struct.unpack_from(
            ">hiqqqhii", summed)
        found.append({
            "base": base, "leader_epoch": epoch, "magic": magic, "crc_ok": crc == crc32c(summed),
            "attributes": attributes, "last_delta": last, "BaseTimestamp": first_time, "MaxTimestamp": max_time,
            "ProducerId": producer, "producer_epoch": producer_epoch, "sequence": sequence, "count": count,
            "body": summed[40:].hex() if len(summed) < 300 else f"{len(summed) - 40} bytes, {crc32c(summed[40:]):x}",
        })
        position = end
    if position < len(data):
        found.append({"cut": len(data) - position})
    return found
