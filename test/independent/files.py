"""Numbers, headers and files, those in bundles too. Names in quotes are sections of src/store/FORMAT.md."""
import hashlib
import os
import re
import struct
import sys

CHUNK, BLOCK, LEAF = 65536, 4096, 1024


class Failure(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class Damage(Failure):
    def __init__(self, text, status=4):
        super().__init__(status, text)


def require(condition, where, what):
    if not condition:
        raise Damage(f"{where}: {what}")


told = set()


def tell(line):
    if line not in told:
        print(line, file=sys.stderr)
    told.add(line)


# --- "Words and numbers"

P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5, M = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5, (1 << 64) - 1


def rotate(value, bits):
    value &= M
    return (value << bits | value >> 64 - bits) & M


def mix(lane, word):
    return rotate(lane + word * P2, 31) * P1 & M


def checksum(data):
    """XXH64, seed 0."""
    long, words = len(data) & ~31, len(data) & ~7
    value = P5
    if long:
        a, b, c, d = (P1 + P2) & M, P2, 0, -P1 & M
        for w, x, y, z in struct.iter_unpack("<4Q", data[:long]):
            a, b, c, d = mix(a, w), mix(b, x), mix(c, y), mix(d, z)
        value = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18)
        for lane in (a, b, c, d):
            value = ((value ^ mix(0, lane)) * P1 + P4) & M
    value = (value + len(data)) & M
    for (word,) in struct.iter_unpack("<Q", data[long:words]):
        value = rotate(value ^ mix(0, word), 27) * P1 + P4 & M
    if len(data) & 4:
        word = int.from_bytes(data[words : words + 4], "little")
        value = rotate(value ^ word * P1 & M, 23) * P2 + P3 & M
    for byte in data[len(data) & ~3 :]:
        value = rotate(value ^ byte * P5 & M, 11) * P1 & M
    value = (value ^ value >> 33) * P2 & M
    value = (value ^ value >> 29) * P3 & M
    return value ^ value >> 32


def digest(data):
    return hashlib.sha256(data).digest()


def take(data, at, count, where):
    require(at + count <= len(data), where, "ends within a field")
    return data[at : at + count], at + count


def take_text(data, at, where):
    length, at = take(data, at, 2, where)
    text, at = take(data, at, int.from_bytes(length, "little"), where)
    try:
        return text.decode(), at
    except UnicodeDecodeError:
        raise Damage(f"{where}: a text is not UTF-8") from None


# --- "Headers"


def header(data, magic, form, where, texts=0, version=1):
    """The fields, then the texts behind them, and the length of the header."""
    require(len(data) >= 24 and data[:8] == magic, where, f"does not begin with {magic.decode()}")
    has_version, reserved, size = struct.unpack_from("<HHI", data, 8)
    require(24 <= size <= min(16384, len(data)), where, "the header has no possible length")
    body, stored = data[: size - 8], data[size - 8 : size]
    require(struct.pack("<Q", checksum(body)) == stored, where, "the header's checksum is wrong")
    if has_version != version:
        raise Damage(f"{where}: has version {has_version}, here it must be {version}", status=6)
    require(reserved == 0, where, "reserved bytes of the header are not 0")
    fields, at = take(body, 16, struct.calcsize(form), where)
    fields = list(struct.unpack(form, fields))
    for _ in range(texts):
        text, at = take_text(body, at, where)
        fields.append(text)
    require(at == len(body), where, "the header does not end with its fields")
    return fields, size


# --- Files: `name` is for messages


class File:
    def __init__(self, path):
        self.name = path
        try:
            self.size = os.path.getsize(path)
        except OSError as error:
            raise Damage(f"{path}: cannot be read: {error.strerror}") from None

    def read(self, offset=0, length=None):
        try:
            with open(self.name, "rb") as file:
                file.seek(offset)
                data = file.read() if length is None else file.read(length)
        except OSError as error:
            raise Damage(f"{self.name}: cannot be read: {error.strerror}") from None
        require(length is None or len(data) == length, self.name, "is too short")
        return data

    def begin(self, length=16384):
        return self.read(0, min(length, self.size))


def names_in(path, form, more=frozenset()):
    found = set(os.listdir(path)) if os.path.isdir(path) else set()
    return [match for match in map(re.compile(form).fullmatch, sorted(found | more)) if match]


class Member(File):
    """A part of a bundle."""

    def __init__(self, bundle, name, at, size):
        self.name, self.bundle, self.at, self.size = f"{bundle.name}, {name}", bundle, at, size

    def read(self, offset=0, length=None):
        length = self.size - offset if length is None else length
        require(0 <= offset <= offset + length <= self.size, self.name, "is too short")
        return self.bundle.read(self.at + offset, length)


class Clear:
    """In the place of the keys of an encrypted repository (sealed.py)."""

    is_sealed, version, pack_begin, tag = False, 1, 56, 0

    def opened(self, file):
        return file

    def piece_name(self, content):
        return digest(content)

    def server_folder(self, server):
        return server

    def volume_folder(self, _server, volume):
        return digest(volume.encode()).hex()[:32]


class Repository:
    """`repo`: a directory, or what was copied from a bucket; paths are those below it."""

    def __init__(self, folder, keys):
        self.folder, self.keys, self.is_damaged = folder, keys, False
        self.members, self.within = {}, {}
        self.read_bundles()
        self.terms = [*self.read_terms()]

    def open(self, path):
        file = self.members.get(path) or File(f"{self.folder}/{path}")
        return file if path.startswith(("packs/", "bundles/")) else self.keys.opened(file)

    def names(self, folder, form):
        """Matches of the names in a folder, of files and members; others are ignored ("The directory")."""
        return names_in(f"{self.folder}/{folder}", form, self.within.get(folder, set()))

    def read_bundles(self):
        """ "Bundles": from the highest number on; what a bundle that counts replaces does not count."""
        bundles, gone = [], set()
        for name in self.names("bundles", r"\d{16}\.bundle"):
            try:
                path = f"bundles/{name[0]}"
                bundles.append((path, *self.bundle(path)))
            except Damage as damage:
                tell(f"error: {damage} (maps and points that lie in it are not known)")
                self.is_damaged = True
        for path, members, replaced in sorted(bundles, reverse=True):
            if path not in gone:
                self.members = {**members, **self.members}
                gone.update(replaced)
        for path in self.members:
            while "/" in path:
                path, _, name = path.rpartition("/")
                self.within.setdefault(path, set()).add(name)

    def bundle(self, path):
        file = self.open(path)
        fields, at = header(file.begin(44), b"US-BUNDL", "<IIIQ", file.name)
        count, replaces, length, directory_sum = fields
        directory, end = file.read(at, length), at + length
        require(checksum(directory) == directory_sum, file.name, "the directory's checksum is wrong")
        members, replaced, at = {}, [], 0
        for _ in range(count):
            name, at = take_text(directory, at, file.name)
            place, at = take(directory, at, 16, file.name)
            begin, size = struct.unpack("<QQ", place)
            require(begin == end, file.name, "a member does not follow the one before it")
            end = begin + size
            members[name] = Member(file, name, begin, size)
        require(end == file.size, file.name, "the members are not the rest of the bundle")
        for _ in range(replaces):
            name, at = take_text(directory, at, file.name)
            replaced.append(name)
        require(at == length, file.name, "the directory does not end with its names")
        return members, replaced

    def read_terms(self):
        """ "One service at a time": each term with the last sequence accepted of those before."""
        for name in self.names("terms", r"(\d{10})\.term"):
            try:
                file = self.open(f"terms/{name[0]}")
                (term, last, _, _), _ = header(file.read(), b"US-TERM ", "<QQQ16s", file.name)
                require(term == int(name[1]), file.name, "is another term")
                yield term, last
            except Damage as damage:
                tell(f"warning: {damage} (left out)")

    def is_stale(self, sequence):
        return any(last < sequence < term << 36 for term, last in self.terms)
