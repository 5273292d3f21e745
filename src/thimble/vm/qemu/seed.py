"""First-boot data for guests: cloud-init's NoCloud files, and systemd credentials. Pure.

NoCloud wants a file system labelled CIDATA with `meta-data`, `user-data`, `network-config` (`fat` packs it);
systemd ≥ 256 takes credentials from SMBIOS type 11 strings, or from fw_cfg where there is no SMBIOS: microvm.
"""

from __future__ import annotations

import base64

import msgspec

from thimble.contract.vm import SeedMethod, SeedSpec

LABEL = "CIDATA"


def hostname(seed: SeedSpec, name: str) -> str:
    return seed.hostname or name


def nocloud(seed: SeedSpec, id: str, name: str, mac: str) -> dict[str, bytes]:
    """The files of the NoCloud volume. JSON is YAML, so nothing needs quoting rules of our own."""
    files = {
        "meta-data": _json({"instance-id": id, "local-hostname": hostname(seed, name)}),
        "user-data": seed.user_data.encode() or b"#cloud-config\n" + _json(_cloud_config(seed, name)),
    }
    if mac:
        files["network-config"] = _json(_network_config(seed, mac))
    return files


def _cloud_config(seed: SeedSpec, name: str) -> dict[str, object]:
    user: dict[str, object] = {"name": seed.user, "ssh_authorized_keys": list(seed.ssh_keys)}
    if seed.user != "root":
        user |= {"shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL"}
    if seed.password_hash:
        user |= {"hashed_passwd": seed.password_hash, "lock_passwd": False}
    return {
        "hostname": hostname(seed, name),
        "disable_root": seed.user != "root",
        "ssh_pwauth": bool(seed.password_hash),
        "users": [user],
    }


def _network_config(seed: SeedSpec, mac: str) -> dict[str, object]:
    card: dict[str, object] = {"match": {"macaddress": mac}}
    if seed.address:
        card |= {"addresses": [seed.address], "dhcp4": False}
        if seed.gateway:
            # in figures: cloud-init fails on the word `default` wherever netplan is not there
            everywhere = "::/0" if ":" in seed.gateway else "0.0.0.0/0"
            card["routes"] = [{"to": everywhere, "via": seed.gateway}]
        if seed.dns:
            card["nameservers"] = {"addresses": list(seed.dns)}
    else:
        card |= {"dhcp4": True}
    return {"version": 2, "ethernets": {"nic0": card}}


def credentials(seed: SeedSpec, name: str, mac: str) -> dict[str, bytes]:
    """systemd credentials by name, see systemd.system-credentials(7); empty when they are not wanted."""
    if seed.method is SeedMethod.NOCLOUD:
        return {}
    found = {"system.hostname": hostname(seed, name).encode()}
    if seed.ssh_keys:
        found |= _keys(seed.user, "".join(key.strip() + "\n" for key in seed.ssh_keys))
    if seed.user != "root":
        found["sysusers.extra"] = f'u {seed.user} - "{seed.user}" /home/{seed.user} /bin/bash\n'.encode()
    if seed.password_hash:
        found[f"passwd.hashed-password.{seed.user}"] = seed.password_hash.encode()
    if mac and seed.address:
        found["network.network.10-thimble"] = _networkd(seed, mac)
    return found


def _keys(user: str, keys: str) -> dict[str, bytes]:
    if user == "root":
        return {"ssh.authorized_keys.root": keys.encode()}
    home = f"/home/{user}"
    text = base64.b64encode(keys.encode()).decode()
    lines = (
        f"d {home} 0700 {user} {user} -",
        f"d {home}/.ssh 0700 {user} {user} -",
        f"f~ {home}/.ssh/authorized_keys 0600 {user} {user} - {text}",
    )
    return {"tmpfiles.extra": ("\n".join(lines) + "\n").encode()}


def _networkd(seed: SeedSpec, mac: str) -> bytes:
    lines = ["[Match]", f"MACAddress={mac}", "[Network]", f"Address={seed.address}"]
    lines += [f"Gateway={seed.gateway}"] if seed.gateway else []
    lines += [f"DNS={server}" for server in seed.dns]
    return ("\n".join(lines) + "\n").encode()


def smbios(name: str, value: bytes) -> bytes:
    """The SMBIOS type 11 string that carries a credential."""
    return f"io.systemd.credential.binary:{name}=".encode() + base64.b64encode(value)


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
