/** The PROXY protocol's headers: what they mean, and that nothing else is taken for one. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { test } from "node:test";
import { type Address, parseAddress } from "@sockets/server";
import { crc32c, parseProxyHeader, type ProxyHeader, ProxyHeaderError } from "../../src/proxy_protocol.ts";
import { formatIp, parseIp } from "../../src/networks.ts";
import { checksummed, hostAndPort, text, tlv, v2 } from "../proxy_headers.ts";
import { generator } from "./generator.ts";

const tcp = (hostname: string, port: number): Address => ({ transport: "tcp", hostname, port });
const INET = hostAndPort([192, 0, 2, 1], [198, 51, 100, 2], 56324, 443);
const IPV6 = [0x20, 0x01, 0xd, 0xb8, ...Array(11).fill(0), 1];
const INET6 = hostAndPort(IPV6, [...Array(15).fill(0), 1], 65535, 0);
const SSL = tlv(0x20, [7, 0, 0, 0, 0, ...tlv(0x21, text("TLSv1.3")), ...tlv(0x22, text("Ünal")), ...tlv(0x99, [1])]);

function path(name: string): number[] {
  const bytes = text(name);
  return [...bytes, ...Array(108 - bytes.length).fill(0)];
}

/** Headers that are right. */
const VALID: Record<string, Uint8Array> = {
  "v1 TCP4": text("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"),
  "v1 TCP6": text("PROXY TCP6 2001:DB8:0::1 ::1 65535 0\r\n"),
  "v1 TCP6, as long as it gets": text(`PROXY TCP6 ${"ffff:".repeat(7)}ffff ${"ffff:".repeat(7)}ffff 65535 65535\r\n`),
  "v1 TCP6 with an IPv4-mapped address": text("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"),
  "v1 UNKNOWN": text("PROXY UNKNOWN\r\n"),
  "v1 UNKNOWN with something behind it": text("PROXY UNKNOWN ffff::1 what ever \xff\r\n"),
  "v1 UNKNOWN, as long as it may be": text(`PROXY UNKNOWN ${"x".repeat(91)}\r\n`),
  "v2 TCP over IPv4": v2(0x21, 0x11, INET),
  "v2 UDP over IPv4": v2(0x21, 0x12, INET),
  "v2 UDP over IPv6, with TLVs": v2(0x21, 0x22, [...INET6, ...tlv(0x02, text("example.org"))]),
  "v2 TCP over IPv6": v2(0x21, 0x21, INET6),
  "v2 Unix": v2(0x21, 0x31, [...path("/run/client"), ...path("\0abstract")]),
  "v2 Unix datagram": v2(0x21, 0x32, [...path(""), ...path("x".repeat(108))]),
  "v2 LOCAL": v2(0x20, 0x00, []),
  "v2 LOCAL, whose rest means nothing": v2(0x20, 0xff, [1, 2, 3]),
  "v2 UNSPEC": v2(0x21, 0x00, []),
  "v2 UNSPEC with TLVs": v2(0x21, 0x00, tlv(0x02, text("example.org"))),
  "v2 with TLVs": checksummed(v2(0x21, 0x11, [
    ...INET,
    ...tlv(0x01, text("h2")),
    ...tlv(0x02, text("example.org")),
    ...tlv(0x03, [0, 0, 0, 0]),
    ...tlv(0x04, [0, 0]),
    ...tlv(0x05, [1, 2, 255]),
    ...SSL,
    ...tlv(0x30, text("blue")),
    ...tlv(0xea, [1, 118]),
  ])),
  "v2, as long as it may be": v2(0x21, 0x11, [...INET, ...tlv(0xe0, Array(4096 - 12 - 3).fill(7))]),
};

const parsed = (name: string): ProxyHeader => parseProxyHeader(VALID[name]!)!;

for (const [name, bytes] of Object.entries(VALID)) {
  test(`proxy: ${name}: whole with what follows; cut at any byte, it is waited for`, () => {
    for (let size = 0; size < bytes.length; size++) assertEquals(parseProxyHeader(bytes.subarray(0, size)), null);
    const header = parseProxyHeader(new Uint8Array([...bytes, ...text("PROXY after")]))!;
    assertEquals(header.bytes, bytes);
    assertEquals(header, parseProxyHeader(bytes));
    assertEquals(header.version, name.startsWith("v1") ? 1 : 2);
    assertEquals(header.command, name.includes("LOCAL") ? "LOCAL" : "PROXY");
  });
}

test("proxy: the addresses of each family", () => {
  const ends = (name: string) => [parsed(name).source, parsed(name).destination];
  assertEquals(ends("v1 TCP4"), [tcp("192.0.2.1", 56324), tcp("198.51.100.2", 443)]);
  assertEquals(ends("v1 TCP6"), [tcp("2001:db8::1", 65535), tcp("::1", 0)]);
  assertEquals(ends("v1 TCP6 with an IPv4-mapped address"), [tcp("192.0.2.1", 1), tcp("::1", 2)]);
  assertEquals(ends("v2 TCP over IPv4"), [tcp("192.0.2.1", 56324), tcp("198.51.100.2", 443)]);
  assertEquals(ends("v2 TCP over IPv6"), [tcp("2001:db8::1", 65535), tcp("::1", 0)]);
  assertEquals(ends("v2 Unix"), [{ transport: "unix", path: "/run/client" }, { transport: "unix", path: "\0abstract" }]);
  // On a stream, datagrams are a transport that is not supported: UNSPEC.
  for (const name of Object.keys(VALID).filter((name) => /LOCAL|UNSPEC|UNKNOWN|UDP|datagram/.test(name))) {
    assertEquals(ends(name), [null, null]);
  }
  assertEquals(parsed("v2 UDP over IPv6, with TLVs").tlvs.authority, "example.org");
});

test("proxy: the TLVs", () => {
  assertEquals(parsed("v2 with TLVs").tlvs, {
    alpn: "h2",
    authority: "example.org",
    uniqueId: new Uint8Array([1, 2, 255]),
    ssl: {
      secure: true,
      certificate: true,
      sessionCertificate: true,
      verified: true,
      version: "TLSv1.3",
      commonName: "Ünal",
    },
    netns: "blue",
    other: new Map([[0xea, new Uint8Array([1, 118])]]),
  });
  assertEquals(parsed("v2 UNSPEC with TLVs").tlvs.authority, "example.org");
  assertEquals(parsed("v2 TCP over IPv4").tlvs, { other: new Map() });
});

test("proxy: a certificate that was not given was not verified", () => {
  const { ssl } = parseProxyHeader(v2(0x21, 0, tlv(0x20, [1, 0, 0, 0, 0])))!.tlvs;
  assertEquals(ssl, { secure: true, certificate: false, sessionCertificate: false, verified: false });
});

test("proxy: CRC-32C as in RFC 3720, appendix B.4", () => {
  assertEquals(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assertEquals(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
  assertEquals(crc32c(text("123456789")), 0xe3069283);
});

test("proxy: addresses of another family than the line's are refused by name", () => {
  const line = text("PROXY TCP6 2001:db8::1 127.0.0.1 1234 8083\r\n");
  assertThrows(() => parseProxyHeader(line), ProxyHeaderError, "2001:db8::1 and 127.0.0.1 are not both addresses of TCP6");
});

const WRONG: Record<string, Uint8Array> = {
  "another protocol": text("G"),
  "almost v1": text("PROXY\t"),
  "almost v2": new Uint8Array([0x0d, 0x0a, 0x0d, 0x0a, 0x01]),
  "a line without CR": text("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"),
  "a line without an end": text(`PROXY UNKNOWN ${"x".repeat(93)}`),
  "a line one byte too long": text(`PROXY UNKNOWN ${"x".repeat(92)}\r\n`),
  "UNKNOWN and more in one word": text("PROXY UNKNOWNS\r\n"),
  "another family": text("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n"),
  "small letters": text("PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n"),
  "two spaces": text("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n"),
  "a space at the end": text("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n"),
  "an IPv6 address as TCP4": text("PROXY TCP4 ::1 1.2.3.4 1 2\r\n"),
  "an IPv4 address as TCP6": text("PROXY TCP6 1.2.3.4 1.2.3.5 1 2\r\n"),
  "an IPv6 client at an IPv4 address": text("PROXY TCP6 2001:db8::1 1.2.3.4 1 2\r\n"),
  "an IPv4 client at an IPv6 address": text("PROXY TCP4 1.2.3.4 2001:db8::1 1 2\r\n"),
  "an IPv4 client at an IPv6 address, as TCP6": text("PROXY TCP6 1.2.3.4 2001:db8::1 1 2\r\n"),
  "an IPv4-mapped address as TCP4": text("PROXY TCP4 ::ffff:1.2.3.4 1.2.3.4 1 2\r\n"),
  "a leading zero in an address": text("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n"),
  "a zone": text("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"),
  "a leading zero in a port": text("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n"),
  "a port too high": text("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n"),
  "a port below zero": text("PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n"),
  "a port missing": text("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n"),
  "version 3": v2(0x31, 0x11, INET),
  "a third command": v2(0x22, 0x11, INET),
  "a fifth family": v2(0x21, 0x41, INET),
  "a third protocol": v2(0x21, 0x13, INET),
  "a family without a protocol": v2(0x21, 0x10, INET),
  "a protocol without a family": v2(0x21, 0x01, INET),
  "addresses cut short": v2(0x21, 0x11, INET.slice(1)),
  "IPv6 addresses cut short": v2(0x21, 0x21, INET),
  "UDP addresses cut short": v2(0x21, 0x12, INET.slice(1)),
  "Unix addresses cut short": v2(0x21, 0x31, path("/a")),
  "a header longer than is allowed": v2(0x21, 0x11, [...INET, ...tlv(0xe0, Array(4096 - 12 - 2).fill(7))]).subarray(0, 16),
  "a TLV cut in its head": v2(0x21, 0x11, [...INET, 1, 0]),
  "a TLV cut in its value": v2(0x21, 0x11, [...INET, 1, 0, 2, 0]),
  "a wrong checksum": v2(0x21, 0x11, [...INET, ...tlv(0x03, [1, 2, 3, 4])]),
  "a short checksum": v2(0x21, 0x11, [...INET, ...tlv(0x03, [1])]),
  "a long unique id": v2(0x21, 0x11, [...INET, ...tlv(0x05, Array(129).fill(1))]),
  "TLS cut short": v2(0x21, 0x11, [...INET, ...tlv(0x20, [1, 0, 0, 0])]),
  "a TLV cut within TLS": v2(0x21, 0x11, [...INET, ...tlv(0x20, [1, 0, 0, 0, 0, 0x21, 0, 9])]),
};

for (const [name, bytes] of Object.entries(WRONG)) {
  test(`proxy: not a header: ${name}`, () => void assertThrows(() => parseProxyHeader(bytes), ProxyHeaderError));
}

test("proxy: mutations and random bytes: a header, a wait or a ProxyHeaderError, and never more than is allowed", () => {
  const random = generator(20_260);
  const below = (limit: number) => Math.floor(random() * limit);
  const originals = Object.values(VALID);
  const outcomes = { header: 0, wait: 0, error: 0 };
  for (let round = 0; round < 20_000; round++) {
    let bytes = [...originals[below(originals.length)]!];
    if (bytes.length > 300 && round % 50 !== 0) bytes = bytes.slice(0, 60);
    if (round % 10 === 0) bytes = Array.from({ length: below(200) }, () => below(256));
    for (let n = below(4); n > 0; n--) {
      const at = below(bytes.length + 1);
      const other = Array.from({ length: below(4) }, () => below(3) === 0 ? [0x0d, 0x0a, 0x20, 0x00][below(4)]! : below(256));
      bytes.splice(at, below(3), ...other);
    }
    const whole = Uint8Array.from(bytes);
    try {
      const header = parseProxyHeader(whole);
      outcomes[header === null ? "wait" : "header"]++;
      assert(header !== null || whole.length < 4112, "it waits for more than is allowed");
      if (header === null) continue;
      assertEquals(header.bytes, whole.slice(0, header.bytes.length));
      // What follows can't change it.
      assertEquals(parseProxyHeader(header.bytes), header);
      for (const end of [header.source, header.destination]) {
        if (end !== null && "hostname" in end) assert(parseIp(end.hostname) !== null, `${end.hostname} is no address`);
      }
    } catch (error) {
      if (!(error instanceof ProxyHeaderError)) throw error;
      outcomes.error++;
    }
  }
  assert(Object.values(outcomes).every((count) => count > 500), JSON.stringify(outcomes));
});

test("proxy: addresses are written as RFC 5952 says", () => {
  const canonical = (text: string) => formatIp(parseIp(text)!);
  for (
    const text of [
      "::",
      "::1",
      "1::",
      "2001:db8::1",
      "2001:db8:0:1:1:1:1:1",
      "1:0:0:2::3",
      "1::2:0:0:3:4",
      "0:1::",
      "10::",
      "a:10::1",
    ]
  ) {
    assertEquals(canonical(text), text);
  }
  assertEquals(canonical("2001:db8:0:0:1:0:0:1"), "2001:db8::1:0:0:1");
  assertEquals(canonical("192.0.2.1"), "192.0.2.1");
  assertEquals(canonical("::ffff:192.0.2.1"), "192.0.2.1");
  assertEquals(parseAddress(`tcp://[${canonical("ABCD::")}]:1`), tcp("abcd::", 1));
});
