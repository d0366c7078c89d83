/** Builds headers of the PROXY protocol, for tests. */
import { crc32c } from "../src/proxy_protocol.ts";

/** Text as bytes. */
export function text(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** A header of version 2: version and command, family and protocol, and the rest. */
export function v2(command: number, family: number, rest: ArrayLike<number>): Uint8Array {
  const signature = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];
  return Uint8Array.from([...signature, command, family, rest.length >> 8, rest.length & 0xff, ...Array.from(rest)]);
}

/** The addresses and ports of a version 2 header. */
export function hostAndPort(source: number[], destination: number[], from: number, to: number): number[] {
  return [...source, ...destination, from >> 8, from & 0xff, to >> 8, to & 0xff];
}

/** A further field. */
export function tlv(type: number, value: ArrayLike<number>): number[] {
  return [type, value.length >> 8, value.length & 0xff, ...Array.from(value)];
}

/** The header with its checksum put where a field of zeros waits for it. */
export function checksummed(header: Uint8Array): Uint8Array {
  const at = header.findIndex((_, i) => i > 16 && String(header.slice(i, i + 7)) === "3,0,4,0,0,0,0") + 3;
  const sum = crc32c(header);
  header.set([sum >>> 24, sum >>> 16 & 0xff, sum >>> 8 & 0xff, sum & 0xff], at);
  return header;
}
