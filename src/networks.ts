/** An IP address as a number, and how many bits it has. */
export interface IpNumber {
  readonly bits: 32 | 128;
  readonly value: bigint;
}

/** `::ffff:0:0/96`: IPv4 addresses in IPv6 notation (RFC 4291, section 2.5.5.2). */
const MAPPED = 0xffffn;

/**
 * Reads an IP address. An IPv4-mapped one is the IPv4 address that it stands for, so that a rule holds for it however it is
 * written; a zone (RFC 4007, section 11) is left out.
 *
 * @returns The number, or `null` when the text is no IP address.
 */
export function parseIp(text: string): IpNumber | null {
  if (!text.includes(":")) {
    const value = parseIPv4(text);
    return value === null ? null : { bits: 32, value };
  }
  const value = parseIPv6(text.replace(/%.*$/, ""));
  if (value === null) return null;
  return value >> 32n === MAPPED ? { bits: 32, value: value & 0xffffffffn } : { bits: 128, value };
}

/** Writes an IP address in its canonical form (RFC 5952). An IPv4-mapped one is left in IPv6 notation. */
export function formatIp({ bits, value }: IpNumber): string {
  if (bits === 32) return [24n, 16n, 8n, 0n].map((shift) => value >> shift & 0xffn).join(".");
  if (value >> 32n === MAPPED) return `::ffff:${formatIp({ bits: 32, value: value & 0xffffffffn })}`;
  const groups = Array.from({ length: 8 }, (_, i) => (value >> BigInt(16 * (7 - i)) & 0xffffn).toString(16)).join(":");
  // The longest run of zeros, the first of several; a single zero stays.
  const runs = groups.match(/\b0(:0)+\b/g) ?? [];
  const longest = runs.reduce((a, b) => b.length > a.length ? b : a, "");
  return longest === "" ? groups : groups.replace(new RegExp(`(^|:)${longest}(:|$)`), "::");
}

/** What one peer can't choose: the IPv4 address, and of an IPv6 address the first 64 bits (RFC 6177: a site gets a /64 at least). */
export function networkOf(hostname: string): string | bigint {
  const ip = parseIp(hostname);
  return ip === null || ip.bits === 32 ? hostname : ip.value >> 64n;
}

/** A list of IP networks. */
export class Networks {
  /** The networks by how many bits of an address they leave open: whether one contains an address is one look-up for each such number. */
  #open = { 32: new Map<bigint, Set<bigint>>(), 128: new Map<bigint, Set<bigint>>() };

  /**
   * @param name What to call the list in an error.
   * @param networks Networks in CIDR notation (RFC 4632), such as `10.0.0.0/8`, and single addresses.
   * @throws {TypeError} When one of them is none.
   */
  constructor(name: string, networks: readonly string[]) {
    if (!Array.isArray(networks)) throw new TypeError(`${name} must be an array of networks, got ${String(networks)}`);
    for (const text of networks) {
      const network = parseNetwork(text);
      if (network === null) {
        throw new TypeError(`${name} must hold networks such as "10.0.0.0/8" and "2001:db8::/32", got ${JSON.stringify(text)}`);
      }
      const open = BigInt(network.open);
      const sizes = this.#open[network.bits];
      if (!sizes.has(open)) sizes.set(open, new Set());
      sizes.get(open)!.add(network.value >> open);
    }
  }

  /** Whether one of the networks contains the address. */
  has(hostname: string): boolean {
    const ip = parseIp(hostname);
    if (ip === null) return false;
    for (const [open, networks] of this.#open[ip.bits]) {
      if (networks.has(ip.value >> open)) return true;
    }
    return false;
  }
}

function parseNetwork(text: unknown): IpNumber & { open: number } | null {
  const parts = typeof text === "string" ? /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) : null;
  if (parts === null) return null;
  const address = parts[1]!;
  const ip = parseIp(address);
  if (ip === null) return null;
  const written = address.includes(":") ? 128 : 32;
  const open = parts[2] === undefined ? 0 : written - Number(parts[2]);
  return open >= 0 && open <= ip.bits ? { ...ip, open } : null;
}

function parseIPv4(text: string): bigint | null {
  const bytes = text.split(".");
  if (bytes.length !== 4) return null;
  let value = 0n;
  for (const byte of bytes) {
    // A leading zero would be octal to some and decimal to others.
    if (!/^(0|[1-9]\d{0,2})$/.test(byte) || Number(byte) > 255) return null;
    value = value << 8n | BigInt(byte);
  }
  return value;
}

function parseIPv6(text: string): bigint | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const groups = halves.map((half) => half === "" ? [] : half.split(":"));
  const last = groups.at(-1)!;
  const tail = last.at(-1);
  if (tail?.includes(".")) {
    const value = parseIPv4(tail);
    if (value === null) return null;
    last.splice(-1, 1, (value >> 16n).toString(16), (value & 0xffffn).toString(16));
  }
  const missing = 8 - groups.flat().length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return null;
  const all = halves.length === 1 ? groups[0]! : [...groups[0]!, ...Array<string>(missing).fill("0"), ...groups[1]!];
  let value = 0n;
  for (const group of all) {
    if (!/^[0-9a-f]{1,4}$/i.test(group)) return null;
    value = value << 16n | BigInt(`0x${group}`);
  }
  return value;
}
