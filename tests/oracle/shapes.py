"""The guard's table of shapes, made from the message schemas in Apache Kafka's own client jar.

shapes.py JAR           writes src/protocol/guard/shapes/table.rs, for every request that src/api names as shapes::NAME
shapes.py --check JAR   says what differs from what is committed, and fails then
"""

import difflib
import glob
import json
import os
import re
import subprocess
import sys
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TABLE = os.path.join(ROOT, "src/protocol/guard/shapes/table.rs")

NUMBERS = {"bool": "BOOL", "int8": "I8", "int16": "I16", "uint16": "I16", "int32": "I32", "uint32": "I32", "int64": "I64",
           "float64": "I64", "uuid": "UUID"}
MAX = 32767

HEAD = """//! Made by tests/oracle/shapes.py from the message schemas of Apache Kafka's client jar. Not to be edited: what is wrong here is
//! wrong there.

use super::{BLOB, BOOL, I8, I16, I32, I64, Kind, Schema, Shape, TEXT, UUID, all, between, from, until};
"""


def versions(text):
    """(first, last) of "3", "3+", "3-7"; None of "none"."""
    if text == "none":
        return None
    match = re.fullmatch(r"(\d+)(\+|-(\d+))?", text)
    if not match:
        raise ValueError(f"versions {text!r}")
    first = int(match[1])
    last = MAX if match[2] == "+" else int(match[3]) if match[3] else first
    return first, last


class Shapes:
    """The shapes of one message."""

    def __init__(self, spec):
        self.structs = {struct["name"]: struct["fields"] for struct in spec.get("commonStructs", [])}
        self.spec = spec

    def schema(self):
        flexible = versions(self.spec["flexibleVersions"])
        shape = self.shape(self.spec["fields"])
        return f"Schema {{ flexible_from: {flexible[0] if flexible else 'i16::MAX'}, shape: {shape} }}"

    def shape(self, fields):
        plain = [field for field in fields if "tag" not in field]
        tagged = sorted((field for field in fields if "tag" in field), key=lambda field: field["tag"])
        for field in tagged:
            # No request has a field that is tagged in some versions only.
            if field["taggedVersions"] != field["versions"]:
                raise ValueError(f"{field['name']}: tagged in {field['taggedVersions']} of {field['versions']}")
        lines = "".join(f"{self.field(field)}, // {field['name']}\n" for field in plain)
        tags = "".join(f"({field['tag']}, {self.field(field)}), // {field['name']}\n" for field in tagged)
        return f"Shape {{ fields: &[\n{lines}], tags: &[\n{tags}] }}" if tags else f"Shape {{ fields: &[\n{lines}], tags: &[] }}"

    def field(self, field):
        nullable = versions(field.get("nullableVersions", "none"))
        kind = self.kind(field["type"], field.get("fields"), nullable)
        first, last = versions(field["versions"])
        if (first, last) == (0, MAX):
            made = f"all({kind})"
        elif last == MAX:
            made = f"from({first}, {kind})"
        elif first == 0:
            made = f"until({last}, {kind})"
        else:
            made = f"between({first}, {last}, {kind})"
        if nullable and kind.startswith("Kind::Maybe"):
            return made
        return f"{made}.null_from({nullable[0]})" if nullable else made

    def kind(self, type_, fields, nullable):
        if type_.startswith("[]"):
            return f"Kind::List(&{self.kind(type_[2:], fields, None)})"
        if type_ in NUMBERS:
            return NUMBERS[type_]
        if type_ == "string":
            return "TEXT"
        if type_ in ("bytes", "records"):
            return "BLOB"
        shape = self.shape(fields if fields is not None else self.structs[type_])
        return f"Kind::Maybe(&{shape})" if nullable else f"Kind::Node(&{shape})"


def wanted():
    """NAME of each shapes::NAME in src/api."""
    names = set()
    for path in glob.glob(os.path.join(ROOT, "src/api/*.rs")):
        with open(path, encoding="utf-8") as file:
            names.update(re.findall(r"&shapes::([A-Z][A-Z_]+)", file.read()))
    return sorted(names)


def table(jar):
    specs = {request["name"].removesuffix("Request"): request for request in requests(jar)}
    by_constant = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper(): spec for name, spec in specs.items()}
    out = [HEAD]
    for name in wanted():
        spec = by_constant[name]
        out.append(f"\n/// {spec['name']}, versions {spec['validVersions']}.\npub static {name}: Schema = {Shapes(spec).schema()};\n")
    command = ["rustfmt", "--edition", "2024", "--config-path", ROOT]
    return subprocess.run(command, input="".join(out), capture_output=True, text=True, check=True).stdout


def requests(jar):
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            if re.fullmatch(r"common/message/\w+Request\.json", name):
                text = archive.read(name).decode()
                yield json.loads("\n".join(re.sub(r"^\s*//.*", "", line) for line in text.splitlines()))


def main(arguments):
    check = "--check" in arguments
    jars = [argument for argument in arguments if argument != "--check"]
    if len(jars) != 1:
        sys.exit(__doc__)
    made = table(jars[0])
    if not check:
        os.makedirs(os.path.dirname(TABLE), exist_ok=True)
        with open(TABLE, "w", encoding="utf-8") as file:
            file.write(made)
        return
    with open(TABLE, encoding="utf-8") as file:
        committed = file.read()
    if committed != made:
        sys.stdout.writelines(difflib.unified_diff(committed.splitlines(True), made.splitlines(True), "committed", "made"))
        sys.exit("src/protocol/guard/shapes/table.rs is not what Kafka's schemas say: tests/oracle/shapes.py JAR makes it")
    print(f"the shapes of {len(wanted())} requests are those of Kafka's schemas")


if __name__ == "__main__":
    main(sys.argv[1:])
