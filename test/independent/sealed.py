"""Keys and sealed files of an encrypted repository: src/store/FORMAT-ENCRYPTION.md, whose sections are named in quotes.

Imported only where a repository is encrypted. AES-GCM comes from Debian's python3-cryptography. A master key in a KMS
is not known here.
"""
import base64
import hashlib
import hmac
import json
import os
import re
import struct
import unicodedata

from files import Clear, Damage, Failure, File, digest, header, names_in, require, tell

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError:
    raise Failure(3, "encrypted: this needs the Python package cryptography (python3-cryptography)") from None

BLOCK, TAG = 16384, 16


def mac(key, *parts):
    return hmac.digest(key, b"".join(parts), "sha256")


def hkdf(key, salt, label):
    return mac(mac(salt or bytes(32), key), label, b"\1")


def unseal(key, nonce, data, bound, where):
    """`nonce`: a u32 and a u64."""
    try:
        return AESGCM(key).decrypt(struct.pack("<IQ", *nonce), data, bound)
    except InvalidTag:
        raise Damage(f"{where}: is damaged or not authentic (AES-GCM)") from None


class Sealed(File):
    """ "Sealed files" """

    def __init__(self, file, keys):
        self.file, self.name = file, file.name
        self.head = file.begin(64)
        (key_id, salt), begin = header(self.head, b"US-SEALD", "<8s32s", self.name)
        self.key = hkdf(keys.data_key(key_id, self.name), salt, b"understudy object 1\n")
        self.blocks = max(1, -(-(file.size - begin) // (BLOCK + TAG)))
        self.size = file.size - begin - TAG * self.blocks
        least = self.blocks > 1
        right = self.size >= 0 and self.size - BLOCK * (self.blocks - 1) >= least
        require(right, self.name, "is too short")
        self.block(self.blocks - 1)

    def block(self, number):
        length = min(BLOCK, self.size - BLOCK * number) + TAG
        data = self.file.read(64 + (BLOCK + TAG) * number, length)
        nonce = (int(number == self.blocks - 1), number)
        return unseal(self.key, nonce, data, self.head[:56], f"{self.name}, block {number}")

    def read(self, offset=0, length=None):
        length = self.size - offset if length is None else length
        require(0 <= offset <= offset + length <= self.size, self.name, "is too short")
        first, end = offset // BLOCK, -(-(offset + length) // BLOCK)
        data = b"".join(map(self.block, range(first, end)))
        return data[offset - BLOCK * first :][:length]


# --- "Keys"


def file_master(path):
    """Gives a function from a key object's `master` to the secret; None where the key is not for it."""
    if os.stat(path).st_mode & 0o077:
        raise Failure(6, f"{path}: others may read this key file (chmod 600)")
    lines = File(path).read().decode("latin-1").splitlines()
    try:
        secret = base64.b64decode(lines[1], validate=True)
        if len(lines) != 2 or lines[0] != "understudy key file 1" or len(secret) != 32:
            raise ValueError
    except (IndexError, ValueError):
        raise Failure(6, f"{path}: is no key file") from None
    own = hkdf(secret, None, b"understudy key file 1\n").hex()[:16]
    return lambda master: secret if (master["kind"], master.get("id")) == ("file", own) else None


def passphrase_master(path):
    try:
        line = File(path).read().decode().split("\n")[0]
    except UnicodeDecodeError:
        raise Failure(6, f"{path}: the passphrase is not UTF-8") from None
    text = unicodedata.normalize("NFKC", line.removesuffix("\r")).encode()

    def secret(master):
        if master["kind"] != "passphrase":
            return None
        salt, n, r, p = bytes.fromhex(master["salt"]), master["n"], master["r"], master["p"]
        require(128 * n * r <= 1 << 30 and 0 < p <= 16, "keys", "scrypt is asked for too much")
        return hashlib.scrypt(text, salt=salt, n=n, r=r, p=p, maxmem=(1 << 31) - 1, dklen=32)

    return secret


def read_key_objects(folder, repository):
    found = []
    for name in names_in(folder, r"([0-9a-f]{16})-[0-9a-f]{8}\.key"):
        path = f"{folder}/{name[0]}"
        try:
            one = json.loads(File(path).read().decode())
            require(one["format"] == "understudy key" and one["version"] == 1, path, "is no key")
            right = one["key"] == name[1] and one["repository"] == repository
            require(right, path, "is another key, or of another repository")
            require(all(type(one[each]) is int for each in ("number", "createdMs")), path, "is no key")
            require(re.fullmatch("[0-9a-f]{64}", one["salt"]), path, "has no salt")
            bytes.fromhex(one["sealed"]), one["master"]["kind"], one["purpose"] + one["domain"]
            found.append({**one, "path": path})
        except (ValueError, KeyError, TypeError, AttributeError):
            tell(f"warning: {path}: is no key object, or damaged")
        except Damage as damage:
            tell(f"warning: {damage}")
    return found


def unwrap(one, secret):
    fields = ("repository", "key", "purpose", "domain", "number", "createdMs")
    bound = "understudy key 1\n" + "".join(f"{one[field]}\n" for field in fields)
    key = hkdf(secret, bytes.fromhex(one["salt"]), b"understudy wrap 1\n")
    return unseal(key, (0, 0), bytes.fromhex(one["sealed"]), bound.encode(), one["path"])


class Keys(Clear):
    is_sealed, version, pack_begin, tag = True, 2, 64, TAG

    def __init__(self, folder, identity, option, path):
        master = {"--key-file": file_master, "--passphrase-file": passphrase_master}[option](path)
        objects = read_key_objects(f"{folder}/keys", identity["id"])
        self.names = identity["encryption"]["names"]
        root_id, root = self.root(objects, master, f"{folder}/keys", option)
        by_root = {"kind": "root", "id": root_id}
        self.name_key, self.data_keys = None, {}
        for one in objects:
            if one["purpose"] == "root" or {**by_root, **one["master"]} != by_root:
                continue
            try:
                key = unwrap(one, root)
            except Damage as damage:
                tell(f"warning: {damage}")
                continue
            if one["purpose"] == "data":
                self.data_keys[bytes.fromhex(one["key"])] = key
            elif one["purpose"] == "names" and one["domain"] == self.names:
                self.name_key = key
        require(self.name_key, f"{folder}/keys", "there is no name key that can be read")

    @staticmethod
    def root(objects, master, where, option):
        damages = []
        for one in objects:
            try:
                secret = master(one["master"]) if one["purpose"] == "root" else None
            except (KeyError, TypeError, ValueError):
                tell(f"warning: {one['path']}: has no possible master")
                continue
            if secret is None:
                continue
            try:
                return one["key"], unwrap(one, secret)
            except Damage as damage:
                damages.append(damage)
        if damages and option == "--key-file":
            raise damages[0]
        raise Failure(6, f"{where}: the key is wrong: it opens none of the root keys here")

    def data_key(self, key_id, where):
        require(key_id in self.data_keys, where, f"there is no data key {key_id.hex()}")
        return self.data_keys[key_id]

    def opened(self, file):
        return Sealed(file, self)

    def pack_cipher(self, key_id, pack_id, where):
        return PackCipher(self, key_id, pack_id, where)

    # "Names"

    def piece_name(self, content):
        plain = digest(content)
        return plain if self.names == "sha-256" else mac(self.name_key, plain)

    def server_folder(self, server):
        return mac(self.name_key, f"understudy server\n{server}".encode()).hex()[:32]

    def volume_folder(self, server, volume):
        return mac(self.name_key, f"understudy volume\n{server}\n{volume}".encode()).hex()[:32]


# --- "Packs and journal segments"


class PackCipher:
    def __init__(self, keys, key_id, pack_id, where):
        data_key = keys.data_key(key_id, where)
        self.records = hkdf(data_key, pack_id, b"understudy pack 1\n")
        self.footers = hkdf(data_key, pack_id, b"understudy footer 1\n")

    def record(self, head, body, at, pack_header, where):
        """The content of a record; `at` is where it begins. All but pieces need the pack's header."""
        kind, attempt = head[0], int.from_bytes(head[12:16], "little")
        if kind == 1:
            return unseal(self.records, (attempt, at), body, head[:56], where)
        attempt = 0xFFFFFFFE if kind == 7 else int.from_bytes(head[8:12], "little")
        return unseal(self.records, (attempt, at), body, head[:16] + pack_header[:56], where)

    def footer(self, stored, bound, where):
        salt = stored[:16]
        key = hkdf(self.footers, salt, b"understudy footer key 1\n")
        entries = unseal(key, (0, 0), stored[16:], bound, where)
        require(mac(self.footers, bound, entries)[:16] == salt, where, "the footer has a wrong salt")
        return entries
