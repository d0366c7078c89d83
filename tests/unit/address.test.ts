/** What an address is, as text and as an object. */
import { type Address, BaseRequestHandler, bind, connect, formatAddress, parseAddress, TCPServer } from "@sockets/server";
import { assert, assertEquals, assertGreater, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { test } from "node:test";
import { generator } from "./generator.ts";
import { inetAddress, ipFamily, toAddress } from "../../src/address.ts";

const GOOD: [string, Address][] = [
  ["tcp://127.0.0.1:0", { transport: "tcp", hostname: "127.0.0.1", port: 0 }],
  ["tcp://localhost:65535", { transport: "tcp", hostname: "localhost", port: 65535 }],
  ["tcp://xn--bcher-kva.example:80", { transport: "tcp", hostname: "xn--bcher-kva.example", port: 80 }],
  ["tcp://[::1]:9000", { transport: "tcp", hostname: "::1", port: 9000 }],
  ["tcp://[fe80::1%eth0]:1", { transport: "tcp", hostname: "fe80::1%eth0", port: 1 }],
  ["udp://0.0.0.0:53", { transport: "udp", hostname: "0.0.0.0", port: 53 }],
  ["udp://[::]:53", { transport: "udp", hostname: "::", port: 53 }],
  ["unix:/run/a.sock", { transport: "unix", path: "/run/a.sock" }],
  ["unix:relative", { transport: "unix", path: "relative" }],
  ["unix:/with a space:and a colon", { transport: "unix", path: "/with a space:and a colon" }],
  // Control characters of ASCII and of Latin 1, what parts lines, what turns the direction, bytes that are no UTF-8.
  ["unix:/a\\x0a\\x1b[31m\\x00\\x7f", { transport: "unix", path: "/a\n\x1b[31m\0\x7f" }],
  ["unix:/\\u0085\\u009b\\u2028\\u202e\\u2066", { transport: "unix", path: "/\x85\x9b\u2028\u202e\u2066" }],
  ["unixgram:p\\xff\\x80", { transport: "unixgram", path: "p\udcff\udc80" }],
  ["unix:/\u{1f600}é", { transport: "unix", path: "/\u{1f600}é" }],
  // Backslashes are what they were, unless they would be read as one of these.
  ["unix:C:\\new\\x2d\\\\u0041\\X1B", { transport: "unix", path: "C:\\new\\x2d\\\\u0041\\X1B" }],
  ["unix:/\\x5cx1b\\x5cx5c\\x5cu202e", { transport: "unix", path: "/\\x1b\\x5c\\u202e" }],
  ["unix:\\0name\\x00\\0", { transport: "unix", path: "\0name\0\\0" }],
  ["unix:\\x5c0name", { transport: "unix", path: "\\0name" }],
  ["unixgram:/run/log", { transport: "unixgram", path: "/run/log" }],
];

for (const [text, address] of GOOD) {
  test(`address: ${JSON.stringify(text)} is read and written back`, () => {
    assertEquals(parseAddress(text), address);
    assertEquals(formatAddress(address), text);
    assertEquals(toAddress(text), address);
    assertEquals(toAddress(address), address);
  });
}

test("address: brackets around a name and zeros before a port are read, and not written", () => {
  assertEquals(formatAddress(parseAddress("tcp://[localhost]:0080")), "tcp://localhost:80");
});

for (
  const port of ["-1", "65536", "1.5", "NaN", "", " 80", "80 ", "80\n", "+80", "0x50", "1e3", "８０", "4294967376"]
) {
  test(`address: ${JSON.stringify(port)} as text is no port`, () => {
    const error = assertThrows(() => parseAddress(`tcp://127.0.0.1:${port}`), RangeError, "port");
    assert(error.message.endsWith(`from 0 to 65535, got ${port}`), error.message);
    assertThrows(() => parseAddress(`udp://[::1]:${port}`), RangeError, "port");
  });
}

const BAD_TEXTS = [
  "",
  "127.0.0.1:80",
  "localhost",
  "http://localhost:80",
  "TCP://localhost:80",
  " tcp://localhost:80",
  "tcp:localhost:80",
  "tcp://localhost",
  "tcp://::1:80",
  "tcp://[::1]",
  "tcp://[::1:80",
  "tcp://::1]:80",
  "tcp://[[::1]]:80",
  "tcp://[::1]x:80",
  "tcp://localhost:80:90",
];

for (const text of BAD_TEXTS) {
  test(`address: ${JSON.stringify(text)} is none, and the message says what one looks like`, () => {
    const error = assertThrows(() => parseAddress(text), TypeError, "tcp://HOST:PORT");
    assertStringIncludes(error.message, JSON.stringify(text));
  });
}

for (const host of ["", "[]", " ", "a b", "a\tb", "a\nb", "a\0b", "a\x7fb", "a/b", "a?b", "a#b", "me@host", "a[b", "a]b"]) {
  test(`address: ${JSON.stringify(host)} is no host name`, () => {
    assertThrows(() => parseAddress(`tcp://${host}:80`), TypeError, "hostname must be");
  });
}

test("address: a URL with a path is no address", () => {
  assertThrows(() => parseAddress("tcp://localhost/path:80"), TypeError, 'got "localhost/path"');
  assertThrows(() => parseAddress("tcp://localhost:80/path"), RangeError, "got 80/path");
  assertThrows(() => parseAddress("tcp://localhost:80/"), RangeError, "got 80/");
});

test("address: a Unix address without a path is none", () => {
  assertThrows(() => parseAddress("unix:"), TypeError, "path must be");
  assertThrows(() => parseAddress("unixgram:"), TypeError, "path must be");
});

test("address: an object is checked as text is", () => {
  const inet = (hostname: unknown, port: unknown) => toAddress({ transport: "tcp", hostname, port } as Address);
  for (const port of [-1, 65536, 1.5, NaN, Infinity, -Infinity, "80", null, undefined]) {
    assertThrows(() => inet("127.0.0.1", port), RangeError, `got ${port}`);
  }
  for (const host of ["", "[::1]", "a/b", "a b", 5, null, undefined]) {
    assertThrows(() => inet(host, 80), TypeError, "hostname must be");
  }
  for (const path of ["", 5, null, undefined]) {
    assertThrows(() => toAddress({ transport: "unix", path } as Address), TypeError, "path must be");
    assertThrows(() => toAddress({ transport: "unixgram", path } as Address), TypeError, "path must be");
  }
  for (const transport of ["TCP", "http", "", 5, undefined]) {
    assertThrows(() => toAddress({ transport, hostname: "a", port: 1 } as Address), TypeError, "transport must be");
  }
});

test("address: what is neither a string nor an object is none", () => {
  for (const value of [undefined, null, 80, true, Symbol("s"), () => {}]) {
    assertThrows(() => toAddress(value as unknown as Address), TypeError, "address must be a string or an object");
  }
});

test("address: what an object holds besides is dropped, and a later change of it is not seen", () => {
  const given = { transport: "tcp" as const, hostname: "::1", port: 80, extra: true };
  const taken = toAddress(given);
  given.port = 81;
  assertEquals(taken, { transport: "tcp", hostname: "::1", port: 80 });
  const unix = { transport: "unix" as const, path: "/a", extra: true };
  const takenUnix = toAddress(unix);
  unix.path = "/b";
  assertEquals(takenUnix, { transport: "unix", path: "/a" });
});

test("address: servers and connect() check theirs before anything is bound", async () => {
  const make = (address: unknown) => new TCPServer(address as Address, BaseRequestHandler);
  assertEquals(make("tcp://[::1]:80").serverAddress, { transport: "tcp", hostname: "::1", port: 80 });
  assertThrows(() => make("tcp://localhost:65536"), RangeError, "65536");
  assertThrows(() => make({ transport: "tcp", hostname: "", port: 80 }), TypeError, "hostname must be");
  assertThrows(() => make(80), TypeError, "got 80");
  assertThrows(() => make("udp://localhost:80"), TypeError, "udp://localhost:80");
  await assertRejects(() => connect({ transport: "tcp", hostname: "localhost", port: 1.5 }), RangeError, "1.5");
  await assertRejects(() => connect("udp://localhost:1"), TypeError, "udp://localhost:1");
  await assertRejects(() => bind("tcp://localhost:1"), TypeError, "tcp://localhost:1");
});

test("address: an abstract name is typed with a backslash and a zero", () => {
  assertEquals(parseAddress("unix:\\0name"), { transport: "unix", path: "\0name" });
  assertEquals(formatAddress({ transport: "unixgram", path: "\0name" }), "unixgram:\\0name");
});

test("address: an IPv4 peer of a dual-stack listener is shown as IPv4", () => {
  assertEquals(inetAddress("tcp", "::ffff:192.0.2.1", 5), { transport: "tcp", hostname: "192.0.2.1", port: 5 });
  assertEquals(inetAddress("udp", "::1", 5), { transport: "udp", hostname: "::1", port: 5 });
  assertEquals(inetAddress("tcp", "64:ff9b::1", 5).hostname, "64:ff9b::1");
});

test("address: an IP address is told from a name", () => {
  const families = ["127.0.0.1", "::1", "localhost", "1.2.3", "1.2.3.4.example", "x1.2.3.4"].map(ipFamily);
  assertEquals(families, ["IPv4", "IPv6", null, null, null, null]);
});

test("address: of 2,000 random texts each is refused as documented or survives a round trip", () => {
  const random = generator(20_240_501);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
  const PIECES = ["tcp", "udp", "unix", "unixgram", "://", ":", "/", "[", "]", "::1", "localhost", "127.0.0.1", "80", "65536"];
  const ODD = [
    "-1",
    "1.5",
    "0",
    "00",
    " ",
    "\n",
    "\0",
    "%",
    "é",
    "\ud800",
    "\u2028",
    "\ufeff",
    "@",
    "?",
    "#",
    "\\",
    '"',
    "a",
    "",
  ];
  const pieces = [...PIECES, ...ODD];
  let read = 0;
  let refused = 0;
  for (let i = 0; i < 2000; i++) {
    let text = "";
    // Half of them begin like an address, for the interesting ones to be among them.
    if (random() < 0.5) text = pick(["tcp://", "udp://", "tcp://[", "udp://localhost:", "tcp://[::1]:", "unix:", "unixgram:"]);
    for (let n = Math.floor(random() * 6); n > 0; n--) text += pick(pieces);
    let address: Address;
    try {
      address = parseAddress(text);
    } catch (error) {
      assert(error instanceof TypeError || error instanceof RangeError, `${JSON.stringify(text)} threw ${error}`);
      refused++;
      continue;
    }
    read++;
    assertEquals(parseAddress(formatAddress(address)), address, JSON.stringify(text));
    assertEquals(toAddress(address), address, JSON.stringify(text));
    assert(text.startsWith(address.transport + ":"), JSON.stringify(text));
  }
  assertGreater(read, 200);
  assertGreater(refused, 200);
});

test("address: a path with a surrogate that stands for no byte is a TypeError", () => {
  for (const path of ["/\ud800", "/a\udfffb"]) {
    assertThrows(() => toAddress({ transport: "unixgram", path }), TypeError, "well-formed");
    assertThrows(() => parseAddress(`unix:${path}`), TypeError, "well-formed");
  }
  assertEquals(toAddress({ transport: "unixgram", path: "/p\udcff" }), { transport: "unixgram", path: "/p\udcff" });
});

test("address: whatever a path is, its text is one line of printable characters that is read back", () => {
  const pieces = [
    "\\",
    "x",
    "u",
    "0",
    "5c",
    "1b",
    "202e",
    "0085",
    "\0",
    "\n",
    "\x1b",
    "\x9b",
    "\u2028",
    "\udc80",
    "d800",
    "\u{1f600}",
    "a",
  ];
  const next = generator(7);
  for (let i = 0; i < 5000; i++) {
    const path = Array.from({ length: 1 + Math.floor(next() * 8) }, () => pieces[Math.floor(next() * pieces.length)]).join("");
    const text = formatAddress({ transport: "unix", path });
    assertEquals(parseAddress(text), { transport: "unix", path });
    // deno-lint-ignore no-control-regex
    assert(!/[\x00-\x1f\x7f-\x9f\u2028\u2029]/.test(text) && text.isWellFormed(), JSON.stringify(text));
  }
});
