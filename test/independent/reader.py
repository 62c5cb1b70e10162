#!/usr/bin/env python3
"""Lists and restores the sealed recovery points of a data directory of Understudy.

    reader.py [KEY] list DIRECTORY                       id, server, time, volumes with their sizes
    reader.py [KEY] restore DIRECTORY POINT VOLUME OUT   writes the raw image, sparse
    KEY: --key-file FILE or --passphrase-file FILE, of an encrypted repository

Written from src/store/FORMAT.md and FORMAT-ENCRYPTION.md alone, and meant to stay so. Names in quotes are sections of
FORMAT.md. DIRECTORY is a data directory or its `repo`, or what was copied from a bucket: a copy, or that of a service
that is stopped. Exit status: 0 done, 2 wrong usage, 3 no room or the like, 4 damaged ("error:" lines; what another
object makes good is a "warning:"), 5 no such point or volume, 6 not a repository of this version, or a wrong key.
"""
import hashlib
import json
import os
import re
import struct
import sys

from files import BLOCK, CHUNK, LEAF, Clear, Damage, Failure, File, Repository
from files import checksum, digest, header, require, take, tell

MAX_TABLE, MAX_BASE_TABLE, MAX_RECORD, MAX_STORED = 589824, 65536, 64 << 20, 65540
ZERO = "zero"  # in the place of a digest


def chunks_of(size, leaf):
    return min(LEAF, -(-size // CHUNK) - leaf * LEAF)


def leaves_of(size):
    return -(-size // (CHUNK * LEAF))


# --- "Entries": a leaf is a dict from chunk of the leaf to [whole or None, {block: digest or ZERO}]


def varint(data, at, where):
    value = 0
    for place in range(5):
        (byte,), at = take(data, at, 1, where)
        value |= (byte & 127) << 7 * place
        if byte < 128:
            require(byte or not place, where, "a number is longer than it must be")
            return value, at
    raise Damage(f"{where}: a number has more than 5 bytes")


def overlay(data, at, blocks, where):
    head, at = take(data, at, 4, where)
    mask, zeros = struct.unpack("<HH", head)
    right = mask and not zeros & ~mask and not mask >> blocks
    require(right, where, "a mask of blocks is wrong")
    over = {}
    for block in range(blocks):
        if zeros >> block & 1:
            over[block] = ZERO
        elif mask >> block & 1:
            over[block], at = take(data, at, 32, where)
    return over, at


def decode_leaf(data, leaf, size, where, kinds=5):
    chunks, found, at, end, after_run = chunks_of(size, leaf), {}, 0, 0, False
    while at < len(data):
        head, at = varint(data, at, where)
        gap, kind = head >> 3, head & 7
        require(kind < kinds, where, f"an entry of kind {kind} may not be here")
        begin, end = end + gap, end + gap + 1
        whole, over = None if kind == 2 else ZERO, {}
        if kind == 0:
            require(gap or not after_run, where, "two neighbouring runs of zeros")
            more, at = varint(data, at, where)
            end += more
        require(end <= chunks, where, "entries lie beyond the volume or leaf")
        if kind in (1, 3):
            whole, at = take(data, at, 32, where)
        if kind > 1:
            length = min(CHUNK, size - (leaf * LEAF + begin) * CHUNK)
            over, at = overlay(data, at, -(-length // BLOCK), where)
        found.update((chunk, [whole, over]) for chunk in range(begin, end))
        after_run = kind == 0
    return found


def compose(older, newer):
    for chunk, (whole, over) in newer.items():
        if whole is None and chunk in older:
            older[chunk] = [older[chunk][0], {**older[chunk][1], **over}]
        else:
            older[chunk] = [whole, over]


# --- "Deltas", "Bases"; `place` is server, volume, generation and size


def first_root(place):
    return digest(("understudy chain\n" + "".join(f"{each}\n" for each in place)).encode())


class Delta:
    """Step 6 of "Restoring a point"."""

    def __init__(self, repo, path, epochs, place):
        self.file, self.size, self.leaves = repo.open(path), place[3], {}
        self.path = path = self.file.name
        fields, begin = header(self.file.begin(), b"US-DELTA", "<IIQIIQQQQ32s32s32s", path, 4)
        start, end, size, _, count, sequence, _, index_at, index_sum, *roots = fields[:12]
        self.before, self.root, leaf_digest = roots
        require((start, end) == epochs, path, "has the epochs of another delta")
        require((*fields[12:15], size) == place, path, "is of another volume or generation")
        require(not repo.is_stale(sequence), path, "is stale")
        right = begin <= index_at and index_at + 24 * count == self.file.size
        right = right and count <= leaves_of(size)
        require(right, path, "the index is not at the end of the file")
        index = self.file.read(index_at, 24 * count)
        require(checksum(index) == index_sum, path, "the checksum of the index is wrong")
        self.read_index(index, begin, index_at, leaf_digest)
        if end == start + 1:
            right = digest(self.before + leaf_digest) == self.root
            require(right, path, "the chain root does not follow from the leaves")
        right = start != 0 or self.before == first_root(place)
        require(right, path, "does not begin at the root of its generation")

    def read_index(self, index, at, end, leaf_digest):
        last, over_all = -1, hashlib.sha256()
        for leaf, length, offset, table_sum in struct.iter_unpack("<IIQQ", index):
            require(last < leaf < leaves_of(self.size), self.path, "leaves do not ascend")
            right = offset == at and at + length <= end and length <= MAX_TABLE
            require(right, self.path, "the table of a leaf is not where it must be")
            over_all.update(struct.pack("<II", leaf, length) + self.file.read(at, length))
            self.leaves[leaf] = (offset, length, table_sum)
            last, at = leaf, at + length
        require(at == end, self.path, "something lies between tables and index")
        require(over_all.digest() == leaf_digest, self.path, "the leaf digest is wrong")

    def leaf(self, leaf, _pieces):
        if leaf not in self.leaves:
            return {}
        offset, length, table_sum = self.leaves[leaf]
        table, where = self.file.read(offset, length), f"{self.path}, leaf {leaf}"
        require(checksum(table) == table_sum, where, "the checksum of the table is wrong")
        return decode_leaf(table, leaf, self.size, where)


class Base:
    """Step 5 of "Restoring a point"."""

    def __init__(self, repo, path, epoch, place):
        file = repo.open(path)
        self.path, self.size, self.digests = file.name, place[3], []
        path, data = file.name, file.read()
        fields, begin = header(data, b"US-BASE ", "<IQIQQIQ32s", path, 4)
        has_epoch, size, _, sequence, _, length, table_sum, self.root = fields[:8]
        require(has_epoch == epoch, path, "has the epoch of another base")
        require((*fields[8:11], size) == place, path, "is of another volume or generation")
        require(not repo.is_stale(sequence), path, "is stale")
        table, at = data[begin:], 0
        require(len(table) == length, path, "the table is not the rest of the file")
        require(checksum(table) == table_sum, path, "the checksum of the table is wrong")
        while at < length:
            head, at = take(table, at, 5, path)
            kind, count = struct.unpack("<BI", head)
            right = kind < 2 and 0 < count <= leaves_of(size) - len(self.digests)
            require(right, path, "a run of leaves is wrong")
            found, at = take(table, at, kind * 32 * count, path)
            starts = range(0, 32 * count, 32)
            self.digests += [found[i : i + 32] if kind else ZERO for i in starts]
        right = len(self.digests) == leaves_of(size)
        require(right, path, "has not as many leaves as the volume")

    def leaf(self, leaf, pieces):
        chunks, where = chunks_of(self.size, leaf), f"{self.path}, leaf {leaf}"
        if self.digests[leaf] is ZERO:
            return {chunk: [ZERO, {}] for chunk in range(chunks)}
        table = pieces.content(self.digests[leaf], None, where)
        found = decode_leaf(table, leaf, self.size, where, kinds=2)
        require(len(found) == chunks, where, "leaves chunks out")
        return found


# --- "Records", "Packs"


def unlz4(data, length):
    """An LZ4 block; IndexError or ValueError where it is none."""
    out, at = bytearray(), 0

    def count(short):
        nonlocal at
        more = 255 if short == 15 else 0
        while more == 255:
            more, at = data[at], at + 1
            short += more
        return short

    while True:
        token, at = data[at], at + 1
        literals = count(token >> 4)
        out += data[at : at + literals]
        at += literals
        if at == len(data):
            return bytes(out)
        offset, at = data[at] | data[at + 1] << 8, at + 2
        matched = count(token & 15) + 4
        if not 0 < offset <= len(out) or len(out) + matched > length:
            raise ValueError
        copied = out[len(out) - offset :][:matched]
        out += (copied * (matched // len(copied) + 1))[:matched]


class Pack:
    """A pack or a journal segment; `keys` tells what is different in an encrypted one."""

    def __init__(self, file, keys):
        self.file, self.keys, self.cipher, self.head = file, keys, None, None

    def read_header(self):
        """id and number, as they are in the header."""
        form = "<16sQQ8s" if self.keys.is_sealed else "<16sQQ"
        head = self.file.begin(self.keys.pack_begin)
        fields, _ = header(head, b"US-PACK ", form, self.file.name, version=self.keys.version)
        self.head = head
        if self.keys.is_sealed:
            self.use(fields[3], fields[0])
        return fields[:2]

    def use(self, key_id, pack_id):
        self.cipher = self.keys.pack_cipher(key_id, pack_id, self.file.name)

    def records(self, on_piece, on_commit=None):
        """Reads records up to the end record or the first that is wrong. Where that is, and whether all is right."""
        size, at, tag = self.file.size, self.keys.pack_begin, self.keys.tag
        while size - at >= 24:
            head = self.file.read(at, min(64, size - at))
            kind, codec, zero, stored, raw, zero2 = struct.unpack_from("<BBHIII", head)
            if kind in (1, 2) and len(head) == 64:
                right = codec < 2 and zero == 0 and 0 < raw <= CHUNK and (zero2 == 0 or tag)
                content, end = head[24:56], at + 64 + stored
                right = right and 0 < stored <= MAX_STORED + tag and end <= size
                if not right or struct.pack("<Q", checksum(head[:56])) != head[56:]:
                    break
                if kind == 1:
                    on_piece(content, (self, at + 64, stored, codec, raw))
            else:
                right = 3 <= kind <= 7 and codec == zero == 0 and (raw == 0 or tag) and zero2 == 0
                end = at + 24 + stored
                if not right or not tag <= stored <= MAX_RECORD + tag or end > size:
                    break
                body = self.file.read(at + 24, stored)
                if struct.pack("<Q", checksum(head[:16] + body)) != head[16:24]:
                    break
                if self.cipher and self.head:
                    body = self.cipher.record(head, body, at, self.head, f"{self.file.name} at {at}")
                if kind == 6 and on_commit:
                    on_commit(body)
                if kind == 7:
                    return at, True
            at = end
        return at, False

    def read_footer(self, pack_id):
        path, size, begin = self.file.name, self.file.size, self.keys.pack_begin
        require(size >= begin + 64, path, "is too short")
        trailer = self.file.read(size - 64, 64)
        magic, end, count, pieces, raw_sum, stored_sum, key_id, footer_sum, own = struct.unpack(
            "<8sQIIQQ8sQQ", trailer
        )
        right = magic == b"US-PKEND" and checksum(trailer[:56]) == own
        require(right, path, "the trailer is damaged")
        length = 56 * count + 2 * self.keys.tag
        right = end >= begin and end + length + 64 == size
        require(right and (self.keys.is_sealed or key_id == bytes(8)), path, "the trailer does not fit the file")
        footer = self.file.read(end, length)
        require(checksum(footer) == footer_sum, path, "the checksum of the footer is wrong")
        if self.keys.is_sealed:
            self.use(key_id, pack_id)
            footer = self.cipher.footer(footer, trailer[:48], path)
        found, last = [], b""
        for content, _, at, flags, raw, _ in struct.iter_unpack("<32s8sIIII", footer):
            stored, is_grant, codec = flags & (1 << 30) - 1, flags >> 30 & 1, flags >> 31
            right = begin <= at and at + stored <= end and 0 < raw <= CHUNK
            right = right and 0 < stored <= MAX_STORED + self.keys.tag
            require(right and content > last, path, "an entry of the footer is wrong")
            last = content
            if not is_grant:
                found.append((content, (self, at, stored, codec, raw)))
        sums = tuple(sum(place[field] for _, place in found) for field in (4, 2))
        right = (len(found), *sums) == (pieces, raw_sum, stored_sum)
        require(right, path, "the trailer's sums are not those of the footer")
        return found

    def body(self, at, stored):
        if not self.cipher:
            return self.file.read(at, stored)
        data = self.file.read(at - 64, 64 + stored)
        return self.cipher.record(data[:64], data[64:], at - 64, None, self.file.name)


class Pieces:
    """Step 8 of "Restoring a point": from digest to the places of a content in all packs."""

    def __init__(self, repo):
        self.places, self.piece_name = {}, repo.keys.piece_name
        for folder in repo.names("packs", r"[0-9a-f]{2}"):
            for name in repo.names(f"packs/{folder[0]}", rf"({folder[0]}[0-9a-f]{{30}})\.pack"):
                pack = Pack(repo.open(f"packs/{folder[0]}/{name[0]}"), repo.keys)
                for content, place in self.of_pack(pack, bytes.fromhex(name[1])):
                    self.places.setdefault(content, []).append(place)

    def of_pack(self, pack, pack_id):
        """By the footer; by the records where it is damaged. The header is not needed."""
        found = []
        try:
            has_id, _ = pack.read_header()
            require(has_id == pack_id, pack.file.name, "has the id of another pack")
        except Damage as damage:
            tell(f"warning: {damage}")
            pack.head = None
            if damage.status != 4:
                return found
        try:
            return pack.read_footer(pack_id)
        except Damage as damage:
            tell(f"warning: {damage}")
            if pack.cipher or not pack.keys.is_sealed:
                try:
                    pack.records(lambda *piece: found.append(piece))
                except Damage as worse:
                    tell(f"warning: {worse}")
            return found

    def content(self, wanted, length, where):
        """The first copy that is right. `length` is what its place asks for; None: a leaf's table of a base."""
        damages, name = [], f"piece {wanted.hex()}"
        for pack, at, stored, codec, raw in self.places.get(wanted, []):
            path = pack.file.name
            try:
                right = raw <= MAX_BASE_TABLE if length is None else raw == length
                require(right, path, f"{name} has not the length of its place")
                body = pack.body(at, stored)
                if codec:
                    right = len(body) > 4 and int.from_bytes(body[:4], "little") == raw
                    body = unlz4(body[4:], raw) if right else b""
                right = len(body) == raw and self.piece_name(body) == wanted
                require(right, path, f"{name} is damaged")
                for damage in damages:
                    tell(f"warning: {damage} (another copy is right)")
                return body
            except (IndexError, ValueError):
                damages.append(f"{path}: {name} is damaged")
            except Damage as damage:
                damages.append(damage)
        raise Damage(f"{damages[0] if damages else f'no pack has {name}'} (for {where})")


# --- "Points"


def is_number(value):
    return type(value) is int and 0 <= value < 1 << 53


def is_text(value):
    return isinstance(value, str)


def hex_of(digits):
    return lambda value: is_text(value) and re.fullmatch(f"[0-9a-f]{{{digits}}}", value)


def list_of(is_right):
    return lambda value: isinstance(value, list) and all(map(is_right, value))


def record_of(fields):
    """`fields`: what is asked of each field, or of several whose names are one key."""
    every = [(name, is_right) for key, is_right in fields.items() for name in key.split()]
    return lambda value: isinstance(value, dict) and all(
        name in value and is_right(value[name]) for name, is_right in every
    )


is_volume = record_of({
    "volume contentDigest": is_text, "sectorBytes": is_number, "generation": hex_of(32),
    "sizeBytes": lambda value: is_number(value) and value <= 1 << 46,
    "epoch": lambda value: is_number(value) and 0 < value < 1 << 32,
    "chainRoot previousRoot": hex_of(64),
})  # fmt: skip
is_point = record_of({
    "id server time requestId": is_text, "timeMs sequence": is_number,
    "cut": record_of({"method": is_text, "passes": is_number, "durationMs": lambda it: type(it) in (int, float)}),
    "volumes": list_of(is_volume), "missingVolumes": list_of(is_text),
})  # fmt: skip


def read_point(repo, path, server, name):
    file = repo.open(path)
    path, data = file.name, file.read()
    (length, body_sum), begin = header(data, b"US-POINT", "<IQ", path)
    body = data[begin:]
    right = len(body) == length and checksum(body) == body_sum
    require(right, path, "length or checksum of the body is wrong")
    try:
        point = json.loads(body.decode())
    except ValueError:
        raise Damage(f"{path}: the body is not JSON") from None
    require(is_point(point), path, "a field is missing or of a wrong type")
    held = [volume["volume"] for volume in point["volumes"]]
    require(len(held) == len(set(held)), path, "has a volume twice")
    right = (point["id"], repo.keys.server_folder(point["server"])) == (name, server)
    require(right, path, "is another point, or of another server")
    return point


def point_files(repo):
    """From the ids of all sealed points to (path, server, id), by time."""
    found = {}
    for server in repo.names("points", r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"):
        folder = f"points/{server[0]}"
        for name in repo.names(folder, r"(\+?\d{8,}T\d{6}\.\d{3}Z-[0-9a-f]{8})\.point"):
            found[name[1]] = (f"{folder}/{name[0]}", server[0], name[1])
    return dict(sorted(found.items()))


# --- "Journal": only to name what is left out


def watermark(path):
    """first, last and offset; last is 0 where nothing was acknowledged."""
    data, found, why = File(path).read(), [], None
    for at in (0, 4096):
        try:
            found.append(header(data[at : at + 4096], b"US-WATER", "<QQQQ", path)[0])
        except Damage as damage:
            why = damage
    if not found and len(data) >= 8192 and any(data):
        raise why
    return max(found)[1:] if found else (1, 0, 0)


def staged(journal, keys, on_commit):
    """Goes through the segments that count; what is wrong behind the acknowledged records is a torn tail."""
    number, last, offset = watermark(f"{journal}/watermark")
    is_whole = last > 0
    while is_whole:
        path = f"{journal}/{number:016}.segment"
        try:
            segment = Pack(File(path), keys)
            _, has_number = segment.read_header()
            require(has_number == number, path, "is another segment")
            end, is_whole = segment.records(lambda *piece: None, on_commit)
            right = is_whole or number > last or number == last and end >= offset
            require(right, path, f"the record at {end} is damaged")
        except Damage:
            if number <= last:
                raise
            return
        number += 1


def tell_staged(directory, repo, sealed):
    """Names the points that are left out; true where the journal is damaged."""
    ids = []

    def note(body):
        try:
            point = json.loads(body)
            if not repo.is_stale(point["sequence"]):
                ids.append(point["id"])
        except (ValueError, KeyError, TypeError):
            raise Damage("the body of a commit is not that of a point") from None

    try:
        if os.path.isdir(f"{directory}/repo") and os.path.isdir(f"{directory}/journal"):
            staged(f"{directory}/journal", repo.keys, note)
    except Damage as damage:
        tell(f"error: {damage} (staged points behind this are not known)")
        return True
    finally:
        for point in ids:
            if point not in sealed:
                tell(f"left out: point {point} is in the journal only")
    return False


# --- "Restoring a point"


class Chains:
    """Steps 3 to 7: ways from a base, or from nothing, to a volume's epoch, the best one first."""

    def __init__(self, repo, point, volume):
        self.place = (point["server"], volume["volume"], volume["generation"], volume["sizeBytes"])
        self.epoch, self.root = volume["epoch"], bytes.fromhex(volume["chainRoot"])
        server, keys = point["server"], repo.keys
        identity = keys.volume_folder(server, volume["volume"])
        within = f"{keys.server_folder(server)}/{identity}/{volume['generation']}"
        self.repo, self.deltas, self.bases = repo, {}, {}
        for name in repo.names(f"deltas/{within}", r"(\d{10})-(\d{10})\.delta"):
            epochs = (int(name[1]), int(name[2]))
            if epochs[0] < epochs[1] <= self.epoch:
                self.deltas[epochs] = f"deltas/{within}/{name[0]}"
        for name in repo.names(f"bases/{within}", r"(\d{10})\.base"):
            if int(name[1]) <= self.epoch:
                self.bases[int(name[1])] = f"bases/{within}/{name[0]}"
        self.found, self.damages, self.source = [], [], self.search()

    def way(self, start, without):
        """The fewest deltas from epoch `start`; None where there is no way."""
        ways, front = {start: []}, [start]
        while front and self.epoch not in ways:
            steps = [key for key in self.deltas if key[0] in front and key not in without]
            steps = [key for key in steps if key[1] not in ways]
            ways.update((key[1], ways[key[0]] + [key]) for key in steps)
            front = [key[1] for key in steps]
        return ways.get(self.epoch)

    def open(self, start, way, without):
        """Objects of a chain, checked and linked. A delta that fails is added to `without`."""
        chain, root = [], first_root(self.place)
        if start:
            chain.append(Base(self.repo, self.bases[start], start, self.place))
            root = chain[0].root
        for key in way:
            without.add(key)
            chain.append(Delta(self.repo, self.deltas[key], key, self.place))
            require(chain[-1].before == root, chain[-1].path, "does not follow the map before it")
            root = chain[-1].root
            without.discard(key)
        if root != self.root:
            without.update(way[-1:])
            raise Damage(f"{chain[-1].path}: its root is not that of the point")
        return chain

    def search(self):
        for start in [*sorted(self.bases, reverse=True), 0]:
            without, known = set(), -1
            while len(without) > known and (way := self.way(start, without)) is not None:
                known = len(without)
                try:
                    chain = self.open(start, way, without)
                except Damage as damage:
                    self.damages.append(damage)
                    continue
                self.warn(self.damages)
                yield chain
                break

    def warn(self, damages):
        for damage in damages:
            tell(f"warning: {damage} (another chain is right)")

    def __iter__(self):
        yield from self.found
        for chain in self.source:
            self.found.append(chain)
            yield chain


class Image:
    """Steps 9 and 10."""

    def __init__(self, repo, point, volume):
        self.name, self.size = f"{volume['volume']} of {point['id']}", volume["sizeBytes"]
        self.chains, self.leaves = Chains(repo, point, volume), {}
        next(iter(self.chains), None)
        self.pieces = Pieces(repo)

    def leaf(self, chain, leaf):
        number, composed = self.leaves.get(id(chain), (None, None))
        if number != leaf:
            composed = {}
            for layer in chain:
                compose(composed, layer.leaf(leaf, self.pieces))
            self.leaves[id(chain)] = (leaf, composed)
        return composed

    def chunk(self, chunk):
        """The content of a chunk, by the first chain that gives it."""
        damages = []
        for chain in self.chains:
            try:
                content = self.assemble(chunk, self.leaf(chain, chunk // LEAF).get(chunk % LEAF))
                self.chains.warn(damages)
                return content
            except Damage as damage:
                damages.append(damage)
        missing = Damage(f"{self.name}: an object is missing: no chain leads to its epoch")
        raise [*damages, *self.chains.damages, missing][0]

    def assemble(self, chunk, entry):
        at, length = chunk * CHUNK, min(CHUNK, self.size - chunk * CHUNK)
        blocks, where = -(-length // BLOCK), f"{self.name} at {at}"
        is_total = entry is not None and (entry[0] is not None or len(entry[1]) == blocks)
        require(is_total, where, "no map has all of the chunk")
        whole, over = entry
        content = bytearray(length)
        if whole is not ZERO and len(over) < blocks:
            content[:] = self.pieces.content(whole, length, where)
        for block, wanted in over.items():
            begin, size = block * BLOCK, min(BLOCK, length - block * BLOCK)
            piece = bytes(size) if wanted is ZERO else self.pieces.content(wanted, size, where)
            content[begin : begin + size] = piece
        return content


def open_repository(directory, key):
    """Step 1. `key`: None, or an option and its file."""
    repo = f"{directory}/repo" if os.path.isdir(f"{directory}/repo") else directory
    path = f"{repo}/format.json"
    try:
        found = json.loads(File(path).read())
    except (Damage, ValueError) as error:
        raise Failure(6, f"{path}: not a repository: {error}") from None
    found = found if isinstance(found, dict) else {}
    is_sealed = found.get("version") == 2
    wanted = {"format": "understudy repository", "version": 2 if is_sealed else 1}
    wanted |= {"digest": "sha-256", "chunkBytes": CHUNK, "chunksPerLeaf": LEAF}
    for name, value in wanted.items():
        if found.get(name) != value:
            raise Failure(6, f"{path}: {name} is not {value}")
    if not is_sealed:
        if key:
            raise Failure(6, f"{path}: the repository is not encrypted, and a key was given")
        return Repository(repo, Clear())
    kind = found.get("encryption")
    kind = kind if isinstance(kind, dict) else {}
    if kind.get("cipher") != "aes-256-gcm" or kind.get("names") not in ("hmac-sha-256", "sha-256"):
        raise Failure(6, f"{path}: encryption is not one that this program knows")
    if not key:
        raise Failure(6, f"{path}: the repository is encrypted: give --key-file or --passphrase-file")
    import sealed

    return Repository(repo, sealed.Keys(repo, found, *key))


def list_points(key, directory):
    repo = open_repository(directory, key)
    files, is_damaged = point_files(repo), repo.is_damaged
    for path, server, name in files.values():
        try:
            point = read_point(repo, path, server, name)
            if repo.is_stale(point["sequence"]):
                tell(f"left out: point {name} is stale")
                continue
            volumes = [f"{volume['volume']}={volume['sizeBytes']}" for volume in point["volumes"]]
            print(name, point["server"], point["time"], *volumes)
        except Damage as damage:
            tell(f"error: {damage}")
            is_damaged = True
    return 4 if tell_staged(directory, repo, files) or is_damaged else 0


def restore(key, directory, wanted, volume_name, out):
    repo = open_repository(directory, key)
    files = point_files(repo)
    if wanted not in files:
        tell_staged(directory, repo, files)
        raise Failure(4 if repo.is_damaged else 5, f"there is no sealed point {wanted}")
    point = read_point(repo, *files[wanted])
    if repo.is_stale(point["sequence"]):
        raise Failure(5, f"point {wanted} is stale: a service has made it that had lost the repository")
    for volume in point["volumes"]:
        if volume["volume"] == volume_name:
            write_image(Image(repo, point, volume), out)
            return 0
    raise Failure(5, f"point {wanted} has no volume {volume_name}")


def write_image(image, out):
    """Step 11. The file has its name once it is whole."""
    if os.path.exists(out):
        raise Failure(2, f"{out} exists already")
    unfinished = f"{out}.unfinished"
    try:
        with open(unfinished, "wb") as file:
            for chunk in range(-(-image.size // CHUNK)):
                content = image.chunk(chunk)
                if any(content):
                    file.seek(chunk * CHUNK)
                    file.write(content)
            file.truncate(image.size)
        os.rename(unfinished, out)
    finally:
        if os.path.exists(unfinished):
            os.remove(unfinished)


USAGE = """usage: reader.py [--key-file FILE | --passphrase-file FILE] COMMAND
       COMMAND: list DIRECTORY | restore DIRECTORY POINT VOLUME OUT"""


def main(words):
    try:
        key = None
        if len(words) > 2 and words[0] in ("--key-file", "--passphrase-file"):
            key, words = words[:2], words[2:]
        if len(words) == 2 and words[0] == "list":
            return list_points(key, words[1])
        if len(words) == 5 and words[0] == "restore":
            return restore(key, *words[1:])
        raise Failure(2, USAGE)
    except (Failure, OSError) as failure:
        tell(f"error: {failure}")
        return getattr(failure, "status", 3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
