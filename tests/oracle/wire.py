"""Kafka's wire format, driven by the message schemas that lie in Apache Kafka's own client jar.

Nothing is transcribed by hand: an answer is decoded with the schema of the very release that it is compared with, and every
byte of it must be used up. A tagged field appears in the result only if it was on the wire.
"""

import json
import re
import struct
import zipfile

NUMBERS = {
    "int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d",
}
ZERO_UUID = bytes(16)


class Malformed(Exception):
    """The answer is not what its schema says."""


class Span:
    """A range of versions: "3+", "0-4", "7", "none"."""

    def __init__(self, text):
        self.first, self.last = 0, -1
        if text not in (None, "none"):
            first, _, last = text.partition("-")
            self.first = int(first.rstrip("+"))
            self.last = 32767 if text.endswith("+") else int(last or first)

    def __contains__(self, version):
        return self.first <= version <= self.last


class Field:
    def __init__(self, spec, structs):
        self.name, self.type = spec["name"], spec["type"]
        self.versions, self.nullable = Span(spec.get("versions")), Span(spec.get("nullableVersions"))
        self.tagged, self.tag = Span(spec.get("taggedVersions")), spec.get("tag")
        self.flexible = Span(spec["flexibleVersions"]) if "flexibleVersions" in spec else None
        self.element = self.type[2:] if self.type.startswith("[]") else self.type
        if "fields" in spec:
            structs[self.element] = [Field(inner, structs) for inner in spec["fields"]]
        self.default = self._default(spec.get("default"))

    def _default(self, text):
        if text == "null":
            return None
        if self.type.startswith("[]"):
            return []
        if self.type in NUMBERS:
            return int(str(text), 0) if text not in (None, "") else 0
        if self.type == "bool":
            return str(text).lower() == "true"
        if self.type == "string":
            return text or ""
        if self.type in ("bytes", "records"):
            return b""
        return ZERO_UUID if self.type == "uuid" else {}


class Message:
    """One request or answer type, all versions."""

    def __init__(self, spec):
        self.name, self.key, self.structs = spec["name"], spec.get("apiKey"), {}
        self.versions, self.flexible = Span(spec["validVersions"]), Span(spec.get("flexibleVersions"))
        self.unstable_last = spec.get("latestVersionUnstable", False)
        for common in spec.get("commonStructs", []):
            self.structs[common["name"]] = [Field(inner, self.structs) for inner in common["fields"]]
        self.fields = [Field(inner, self.structs) for inner in spec["fields"]]

    def encode(self, values, version):
        """Fields that the version lacks are left out; fields that are not given have their default."""
        out = bytearray()
        self._write_struct(out, self.fields, values, version)
        return bytes(out)

    def decode(self, data, version):
        reader = Reader(data)
        values = self._read_struct(reader, self.fields, version)
        if reader.position != len(data):
            raise Malformed(f"{self.name} v{version}: {len(data) - reader.position} bytes left over")
        return values

    def _compact(self, field, version):
        return version in (field.flexible if field.flexible is not None else self.flexible)

    def _write_struct(self, out, fields, values, version):
        unknown = set(values) - {field.name for field in fields}
        assert not unknown, f"{self.name} has no {unknown}"
        tags = []
        for field in fields:
            if version not in field.versions:
                continue
            value = values.get(field.name, field.default)
            if version in field.tagged:
                if field.name in values:
                    body = bytearray()
                    self._write(body, field, value, version)
                    tags.append((field.tag, body))
            else:
                self._write(out, field, value, version)
        if version in self.flexible:
            write_uvarint(out, len(tags))
            for tag, body in sorted(tags):
                write_uvarint(out, tag)
                write_uvarint(out, len(body))
                out += body

    def _write(self, out, field, value, version):
        compact = self._compact(field, version)
        if field.type.startswith("[]"):
            write_length(out, None if value is None else len(value), compact, ">i")
            for item in value or []:
                self._write_one(out, field.element, item, version, compact)
        elif field.element in self.structs and version in field.nullable:
            out += b"\xff" if value is None else b"\x01"
            if value is not None:
                self._write_one(out, field.element, value, version, compact)
        else:
            self._write_one(out, field.type, value, version, compact)

    def _write_one(self, out, kind, value, version, compact):
        if kind in NUMBERS:
            out += struct.pack(NUMBERS[kind], value)
        elif kind == "bool":
            out.append(1 if value else 0)
        elif kind == "uuid":
            out += value
        elif kind in ("string", "bytes", "records"):
            data = value.encode() if isinstance(value, str) else value
            write_length(out, None if data is None else len(data), compact, ">h" if kind == "string" else ">i")
            out += data or b""
        else:
            self._write_struct(out, self.structs[kind], value, version)

    def _read_struct(self, reader, fields, version):
        values, tagged = {}, {}
        for field in fields:
            if version not in field.versions:
                continue
            if version in field.tagged:
                tagged[field.tag] = field
            else:
                values[field.name] = self._read(reader, field, version)
        if version in self.flexible:
            for _ in range(reader.uvarint()):
                tag, size = reader.uvarint(), reader.uvarint()
                end = reader.position + size
                if tag in tagged:
                    values[tagged[tag].name] = self._read(reader, tagged[tag], version)
                else:
                    values[f"tag {tag}"] = reader.take(size)
                if reader.position != end:
                    raise Malformed(f"{self.name} v{version}: tag {tag} is not as long as it says")
        return values

    def _read(self, reader, field, version):
        compact = self._compact(field, version)
        if field.type.startswith("[]"):
            count = reader.length(compact, ">i")
            if count is None:
                if version not in field.nullable:
                    raise Malformed(f"{self.name} v{version}: {field.name} is null")
                return None
            return [self._read_one(reader, field.element, version, compact) for _ in range(count)]
        if field.element in self.structs and version in field.nullable and reader.number(">b") < 0:
            return None
        value = self._read_one(reader, field.type, version, compact)
        if value is None and version not in field.nullable:
            raise Malformed(f"{self.name} v{version}: {field.name} is null")
        return value

    def _read_one(self, reader, kind, version, compact):
        if kind in NUMBERS:
            return reader.number(NUMBERS[kind])
        if kind == "bool":
            return reader.number(">b") != 0
        if kind == "uuid":
            return reader.take(16)
        if kind in ("string", "bytes", "records"):
            length = reader.length(compact, ">h" if kind == "string" else ">i")
            data = None if length is None else reader.take(length)
            return data.decode() if kind == "string" and data is not None else data
        return self._read_struct(reader, self.structs[kind], version)


class Reader:
    def __init__(self, data):
        self.data, self.position = data, 0

    def take(self, count):
        if count < 0 or self.position + count > len(self.data):
            raise Malformed("the answer ends early")
        self.position += count
        return self.data[self.position - count:self.position]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def uvarint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def length(self, compact, form):
        length = self.uvarint() - 1 if compact else self.number(form)
        return None if length < 0 else length


def write_uvarint(out, value):
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def write_length(out, length, compact, form):
    if compact:
        write_uvarint(out, 0 if length is None else length + 1)
    else:
        out += struct.pack(form, -1 if length is None else length)


def schemas(jar):
    """Request and answer types by name without the ending: {"Fetch": (request, answer)}."""
    found = {}
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            match = re.fullmatch(r"common/message/(\w+?)(Request|Response)\.json", name)
            if match:
                text = archive.read(name).decode()
                spec = json.loads("\n".join(re.sub(r"^\s*//.*", "", line) for line in text.splitlines()))
                if spec["validVersions"] != "none":
                    found.setdefault(match[1], {})[match[2]] = Message(spec)
    return {name: (pair["Request"], pair["Response"]) for name, pair in found.items() if len(pair) == 2}
